-- Publishes messages and acks what they were made from, in one step: for all partitions of a member that have something to forward. Either all of it takes
-- effect or nothing.
--
-- A round that is sent again because nobody knows what became of it is recognised: each source keeps the epoch and the number of the last round that
-- took effect there. An owner sends its rounds one after the other, each with a higher number.
--
-- KEYS: of each source log, part, what the group has of it; of each target log, part, delayed, held.
-- ARGV: group, number of the round, how many sources, how many targets; of each source life, epoch, and as for commit.lua position ('' where its
-- owner knows that the epoch is over), entries before it, map, entries done beyond, last id that is done; of each target its life; of each
-- message the number of its target, its id (16 bytes), when it is due ('' for at once), the words of its entry, packed.
-- Answers {'forwarded', and of each message its entry, or '' where it is held}; {'there'} where this round took effect before; {'fenced', source,
-- 'certain' | 'unknown'} where another owns a source: it is certain that the round did not take effect before, or not known; {'gone', target} where a
-- target is another or gone. Then nothing is changed.
local group, round, sources, targets = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local at, over, certain = 5, nil, false
for i = 1, sources do
  local part, has, life, epoch = KEYS[3 * i - 1], KEYS[3 * i], ARGV[at], ARGV[at + 1]
  local was = redis.call('HMGET', has, 'epoch', 'forward')
  local of, number = string.match(was[2] or '', '^(%d+) (%d+)$')
  if of == epoch and tonumber(number) >= round then return {'there'} end
  -- Who owned it after us may have written over what we would look for.
  if was[1] == epoch or (of and tonumber(of) <= tonumber(epoch)) then certain = true end
  local lives = (redis.call('HGET', part, 'life') or '') == life
  if ARGV[at + 2] == '' or was[1] ~= epoch or not lives then over = over or i end
  at = at + 7
end
if over then return {'fenced', tostring(over), certain and 'certain' or 'unknown'} end

-- Keys of a target. What is asked of them here, so that a key of another kind is refused before anything is written.
local function target(number)
  local first = 3 * sources + 4 * (number - 1)
  return KEYS[first + 1], KEYS[first + 2], KEYS[first + 3], KEYS[first + 4]
end
for i = 1, targets do
  local log, part, delayed, held = target(i)
  redis.call('XLEN', log)
  redis.call('ZCARD', delayed)
  redis.call('HLEN', held)
  local life = redis.call('HGET', part, 'life') or ''
  if life ~= ARGV[at] or redis.call('EXISTS', log) == 0 then return {'gone', tostring(i)} end
  at = at + 1
end

local told = {'forwarded'}
for message = at, #ARGV, 4 do
  local log, _, delayed, held = target(tonumber(ARGV[message]))
  if ARGV[message + 2] == '' then
    told[#told + 1] = redis.call('XADD', log, 'NOMKSTREAM', '*', unpack(words(ARGV[message + 3])))
  else
    hold(delayed, held, unpack(ARGV, message + 1, message + 3))
    told[#told + 1] = ''
  end
end
for i = 1, sources do
  local first = 5 + 7 * (i - 1)
  store(KEYS[3 * i - 2], KEYS[3 * i], group, unpack(ARGV, first + 2, first + 6))
  redis.call('HSET', KEYS[3 * i], 'forward', ARGV[first + 1] .. ' ' .. ARGV[2])
end
return told
