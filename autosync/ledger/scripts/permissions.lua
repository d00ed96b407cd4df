-- permissions: check that this user may run all commands that autosync uses: at the start, rather than when the first file is saved.
-- KEYS[1] a key that has no other use; it is deleted in the end.
-- Returns the server's first refusal as an error, or 1.
local key = KEYS[1]
for _, command in ipairs({
  {'DEL', key}, {'TIME'}, {'EXISTS', key}, {'GET', key}, {'SET', key, '', 'PX', 1000}, {'PTTL', key}, {'DEL', key},
  {'HSET', key, 'a', 1}, {'HSETNX', key, 'b', 1}, {'HINCRBY', key, 'a', 1}, {'HGET', key, 'a'}, {'HMGET', key, 'a', 'b'},
  {'HGETALL', key}, {'HSCAN', key, 0}, {'HLEN', key}, {'HEXISTS', key, 'a'}, {'HDEL', key, 'a'}, {'PEXPIRE', key, 1000}, {'DEL', key},
  {'ZADD', key, 1, 'a'}, {'ZCARD', key}, {'ZSCORE', key, 'a'}, {'ZRANGE', key, 0, 0}, {'ZRANGEBYSCORE', key, 0, 1},
  {'ZMSCORE', key, 'a'}, {'ZCOUNT', key, 0, 1}, {'ZREMRANGEBYSCORE', key, 2, 3}, {'ZREM', key, 'a'},
  {'LPUSH', key, 'a'}, {'RPUSH', key, 'a'}, {'LRANGE', key, 0, 0}, {'LLEN', key}, {'LTRIM', key, 0, 0}, {'DEL', key},
  {'SADD', key, 'a'}, {'SMEMBERS', key}, {'SREM', key, 'a'}, {'DEL', key},
}) do
  local reply = redis.pcall(unpack(command))
  if type(reply) == 'table' and reply.err then
    redis.pcall('DEL', key)
    return reply
  end
end
return 1
