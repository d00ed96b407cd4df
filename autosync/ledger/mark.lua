-- mark: these keys are not known to be right in the target.
--
-- The ledger of one mirror, as all scripts here use it (one hash slot, so one Redis cluster node):
--   KEYS[1] mirror  hash  version, definition, epoch, cleared (when all was last right), holding
--   KEYS[2] state   hash  key -> "generation claimed attempts owner hint"; only dirty keys are in it
--   KEYS[3] since   zset  key -> ms since when it is dirty; the lowest score is the lag
--   KEYS[4] due     zset  key -> ms: end of the lease of a claimed key, or time of the next try of a failed one;
--                         a key that merely waits in the queue is not in it
--   KEYS[5] failed  hash  key -> JSON with the reason
--   KEYS[6] stats   hash  files, bytes, deleted, failures: counted since the mirror exists
--   KEYS[7] uploads hash  key -> tokens of the uploads in parts that are open for it, one a line; only such keys are in it
-- Beside them: watcher (who has the place), skipped (hash: path -> why it is not sent).
-- Times are the server's own.
--
-- ARGV: key, hint, key, hint, ...
-- Returns {number of dirty keys, index of each key that needs a message}. A key that waits in the queue or is being worked on
-- needs none: its generation grows, and whoever holds it will look at the disk once more.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = {0}
for i = 1, #ARGV, 2 do
  local key, hint = ARGV[i], ARGV[i + 1]
  local held = redis.call('HGET', KEYS[2], key)
  if not held then
    -- Generations are tickets too: one that begins with the time, in microseconds, was not there before, not even before the memory was
    -- lost; no key can be marked and claimed so often that its generation overtakes the clock.
    redis.call('HSET', KEYS[2], key, string.format('%d 0 0 - %s', time[1] * 1000000 + time[2], hint))
    redis.call('ZADD', KEYS[3], now, key)
    answer[#answer + 1] = (i + 1) / 2
  else
    local generation, claimed, attempts, owner = string.match(held, '^(%d+) (%d+) (%d+) (%S+)')
    if owner == '-' and redis.call('ZREM', KEYS[4], key) == 1 then
      -- It waited for its next try; the change is a reason to try now.
      attempts = 0
      answer[#answer + 1] = (i + 1) / 2
    end
    if string.sub(hint, 1, 3) == '-2 ' then hint = string.match(held, '^%d+ %d+ %d+ %S+ (.*)$') end -- who knows nothing adds nothing
    redis.call('HSET', KEYS[2], key, string.format('%d %d %d %s %s', generation + 1, claimed, attempts, owner, hint))
  end
end
answer[1] = redis.call('HLEN', KEYS[2])
return answer
