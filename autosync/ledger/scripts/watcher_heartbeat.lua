-- watcher_heartbeat: acquire or renew the watcher's lock, and return the figures that a watcher needs each second.
-- KEYS[1] the watcher's lock, a string; KEYS[2..10] as KEYS[1..9] in mark_dirty.lua; KEYS[11] what operators request of the watcher, a
-- list; KEYS[12] denied.
-- ARGV: holder ("": only read the figures), lease in ms, then counters that are written if the holder has the lock: name, number, name,
-- number, ...
-- Returns {the holder of the lock, epoch or "", dirty, claimed or waiting, failed, files, bytes, deleted, ms since the oldest is dirty,
-- 1 if the mirror is paused, number of requests, number of disputed keys, number of those without a resolution, number of denied keys}.
local holder = redis.call('GET', KEYS[1])
if ARGV[1] ~= '' and (not holder or holder == ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  holder = ARGV[1]
end
if #ARGV > 2 and holder == ARGV[1] then redis.call('HSET', KEYS[7], unpack(ARGV, 3)) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
local stats = redis.call('HMGET', KEYS[7], 'files', 'bytes', 'deleted')
return {
  holder or '', redis.call('HGET', KEYS[2], 'epoch') or '', redis.call('HLEN', KEYS[3]), redis.call('ZCARD', KEYS[5]),
  redis.call('HLEN', KEYS[6]), tonumber(stats[1] or 0), tonumber(stats[2] or 0), tonumber(stats[3] or 0),
  oldest[2] and now - tonumber(oldest[2]) or 0, redis.call('HEXISTS', KEYS[2], 'paused'), redis.call('LLEN', KEYS[11]),
  redis.call('HLEN', KEYS[9]), redis.call('ZCARD', KEYS[10]), redis.call('ZCARD', KEYS[12]),
}
