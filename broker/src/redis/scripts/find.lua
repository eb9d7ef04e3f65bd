-- Finds messages by their ids, before any of them is sent again because nobody knows what became of it.
--
-- KEYS: log. ARGV: id of an entry that was there before they were first sent, how many entries may be looked at, then the ids of the messages (16 bytes).
-- Answers {'found', the last entry that was looked at, and of each message its entry, or '' where it is not there}; {'far'} where there is more
-- to look at.
local there = {}
for i = 3, #ARGV do there[ARGV[i]] = '' end
local last = search(KEYS[1], ARGV[1], tonumber(ARGV[2]), function(entry)
  local fields = entry[2]
  for i = 1, #fields, 2 do
    if fields[i] == 'id' and there[fields[i + 1]] == '' then there[fields[i + 1]] = entry[1] end
  end
end)
if not last then return {'far'} end
local told = {'found', last}
for i = 3, #ARGV do told[#told + 1] = there[ARGV[i]] end
return told
