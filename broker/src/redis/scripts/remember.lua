-- What scripts about members share; it is put before them. Their keys are members, asked, owners, news, had.

-- The last static member that left keeps what it had, unless another had it in passing.
local function remember(partition, member, now)
  local was = redis.call('HGET', KEYS[5], partition)
  local since = tonumber(redis.call('HGET', KEYS[5], '@' .. partition) or now)
  if not was or was == member or since <= now - 60000 or redis.call('HEXISTS', KEYS[2], was) == 1 then
    redis.call('HSET', KEYS[5], partition, member)
  end
end
