-- note_upload: add or remove the note of a multipart upload that the target may hold open. KEYS as in mark_dirty.lua.
-- ARGV: key, token to add or "", token to remove or ""
-- A key can have several uploads: a worker that lost its claim may be late, and a target may refuse to abort. Each token is a line of its
-- own, so that no worker removes the note of another.
local others = {}
for token in string.gmatch(redis.call('HGET', KEYS[7], ARGV[1]) or '', '[^\n]+') do
  if token ~= ARGV[2] and token ~= ARGV[3] then others[#others + 1] = token end
end
if ARGV[2] ~= '' then others[#others + 1] = ARGV[2] end
if #others > 0 then
  redis.call('HSET', KEYS[7], ARGV[1], table.concat(others, '\n'))
else
  redis.call('HDEL', KEYS[7], ARGV[1])
end
