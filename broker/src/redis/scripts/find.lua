-- Finds messages by their ids, before any of them is sent again because nobody knows what became of it.
--
-- KEYS: log. ARGV: id of an entry that was there before they were first sent, how many entries may be looked at, then the ids of the messages (16 bytes).
-- Answers {'found', the last entry that was looked at, and of each message its entry, or '' where it is not there}; {'far'} where there are more
-- entries to look at.
local last, looked, most, there = ARGV[1], 0, tonumber(ARGV[2]), {}
for i = 3, #ARGV do there[ARGV[i]] = '' end
while true do
  local found = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 100)
  for _, entry in ipairs(found) do
    local fields = entry[2]
    for i = 1, #fields, 2 do
      if fields[i] == 'id' and there[fields[i + 1]] == '' then there[fields[i + 1]] = entry[1] end
    end
    last = entry[1]
  end
  looked = looked + #found
  if #found < 100 then break end
  if looked >= most then return {'far'} end
end
local told = {'found', last}
for i = 3, #ARGV do told[#told + 1] = there[ARGV[i]] end
return told
