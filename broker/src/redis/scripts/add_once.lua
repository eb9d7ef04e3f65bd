-- Appends a message unless it is there: for one that is sent again because nobody knows what became of it.
--
-- It may be the next entry, where that was found out before (find.lua): one entry is looked at first, and then many at a time.
--
-- KEYS: log. ARGV: id of the message (16 bytes), id of an entry that was there before it was first sent, how many entries may be looked
-- at, then the fields.
-- Answers {'added', entry}, {'there', entry}, {'none'} where there is no log, {'far'} where it was not found among so many: then nothing is
-- written, and nobody knows.
local from, looked, most, page = '(' .. ARGV[2], 0, tonumber(ARGV[3]), 1
while true do
  local found = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', page)
  for _, entry in ipairs(found) do
    local fields = entry[2]
    for i = 1, #fields, 2 do
      if fields[i] == 'id' and fields[i + 1] == ARGV[1] then return {'there', entry[1]} end
    end
    from = '(' .. entry[1]
  end
  looked = looked + #found
  if #found < page then break end
  page = 100
  if looked >= most then return {'far'} end
end
local added = redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', unpack(ARGV, 4))
if not added then return {'none'} end
return {'added', added}
