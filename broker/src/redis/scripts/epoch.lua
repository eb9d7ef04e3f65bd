-- What scripts that raise an epoch share; it is put before them.

-- The epoch behind the one that is stored, and not below the time; nothing where what is stored is none that can grow. Numbers of scripts are exact below
-- 2^53: beyond, the next would be the same.
local function next_epoch(stored, now)
  if not stored then return now end
  local number = string.match(stored, '^%d+$') and tonumber(stored)
  if not number or number >= 9007199254740991 then return nil end
  return math.max(now, number + 1)
end
