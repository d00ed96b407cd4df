-- guard: one watcher a mirror. Takes or renews its place, and answers what the watcher has to know each time.
-- KEYS[1] the watcher's place, a string; KEYS[2..8] as KEYS[1..7] in mark.lua; KEYS[9] what is asked of the watcher, a list.
-- ARGV: who ("": somebody who only looks, and takes no place), time to live in ms, and what whoever has the place tells: name, number,
-- name, number, ...
-- Returns {who has the place, epoch or "", dirty, claimed or waiting, failed, files, bytes, deleted, ms since the oldest is dirty,
-- 1 if the mirror is paused, how much is asked of the watcher}.
local held = redis.call('GET', KEYS[1])
if ARGV[1] ~= '' and (not held or held == ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  held = ARGV[1]
end
if #ARGV > 2 and held == ARGV[1] then redis.call('HSET', KEYS[7], unpack(ARGV, 3)) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
local stats = redis.call('HMGET', KEYS[7], 'files', 'bytes', 'deleted')
return {
  held or '', redis.call('HGET', KEYS[2], 'epoch') or '', redis.call('HLEN', KEYS[3]), redis.call('ZCARD', KEYS[5]),
  redis.call('HLEN', KEYS[6]), tonumber(stats[1] or 0), tonumber(stats[2] or 0), tonumber(stats[3] or 0),
  oldest[2] and now - tonumber(oldest[2]) or 0, redis.call('HEXISTS', KEYS[2], 'paused'), redis.call('LLEN', KEYS[9]),
}
