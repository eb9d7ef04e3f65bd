-- Shared by scripts that look for messages in a log. Calls `look` with each entry behind `last`, in order, until it answers something true, and answers that;
-- else the last entry there is. Answers nothing where there is more to look at than `most` entries or 64 MiB: so long, and no longer, a server stands still.
-- One entry is looked at first, as it is often the next one; then about a megabyte together.
local function search(log, last, most, look)
  local looked, bytes, page = 0, 0, 1
  while looked < most and bytes < 67108864 do
    local found, size = redis.call('XRANGE', log, '(' .. last, '+', 'COUNT', page), 0
    for _, entry in ipairs(found) do
      local answer = look(entry)
      if answer then return answer end
      for _, word in ipairs(entry[2]) do size = size + #word end
      last = entry[1]
    end
    if #found < page then return last end
    looked, bytes = looked + #found, bytes + size
    page = math.max(1, math.min(100, math.floor(1048576 * #found / math.max(size, 1))))
  end
end

