-- The shared limiter's arithmetic, atomic over all endpoints of a model. It is that of
-- core/limits/{group,book,breaker}.py; tests/limits/test_contract.py asks the same of both. Change both.
--
-- KEYS: for each place: group (hash), buckets (hash), slots (sorted set), account's purse (hash).
-- ARGV: operation, now ("" is this server's clock), window_s, slack_s, line_s, slot_lease_s, then the
-- operation's own.

local op = ARGV[1]
local now = tonumber(ARGV[2])
if not now then
  local t = redis.call('TIME')
  now = tonumber(t[1]) + tonumber(t[2]) / 1000000
end
local window, slack, line, slot_lease = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local bucket_s, span, credit = window / 240, window + slack, window / 100
local KEEP_MS, STATED_FOR, RECOVERS_IN, PROBE_LEASE, PROBE_ENDS = 7200000, 600, 600, 30, 3
local FIELDS = {'calls_at', 'tokens_at', 'low', 'calls', 'tokens', 'line_at', 'recall_at', 'slot_at', 'blocked',
  'rpm', 'tpm', 'stated_at', 'throttle', 'throttle_at', 'ratio', 'took', 'cold_at',
  'cause', 'failures', 'opens', 'until', 'probe'}
local PURSE = {'cause', 'failures', 'opens', 'until', 'probe', 'held'}

local function text(value)
  if type(value) == 'number' then return string.format('%.17g', value) end
  return value
end

local function read(key, fields)
  local found, row = redis.call('HMGET', key, unpack(fields)), {}
  for i, name in ipairs(fields) do
    if name == 'cause' then row[name] = found[i] or '' else row[name] = tonumber(found[i] or 0) end
  end
  return row, found[1] ~= false
end

local function write(key, row, fields)
  local args = {}
  for _, name in ipairs(fields) do
    args[#args + 1] = name
    args[#args + 1] = text(row[name])
  end
  redis.call('HSET', key, unpack(args))
  redis.call('PEXPIRE', key, KEEP_MS)
end

local function unit(g, limit) return (now - g.cold_at < span and 1 or 0.95) * (span + bucket_s) / limit end

local function field(which, index) return which .. string.format('%.0f', index) end

local function add(g, index, calls, tokens)
  if calls ~= 0 then redis.call('HINCRBY', g.buckets, field('c', index), calls) end
  if tokens ~= 0 then redis.call('HINCRBY', g.buckets, field('t', index), tokens) end
  g.calls, g.tokens = g.calls + calls, g.tokens + tokens
end

local function forget(g)
  local low = math.floor((now - span) / bucket_s)
  if low > g.low then
    if low - g.low > 600 then
      redis.call('DEL', g.buckets)
      g.calls, g.tokens = 0, 0
      -- Places given away ahead are never this old.
    elseif g.calls ~= 0 or g.tokens ~= 0 then
      local gone = {}
      for index = g.low, low - 1 do
        gone[#gone + 1] = field('c', index)
        gone[#gone + 1] = field('t', index)
      end
      local found = redis.call('HMGET', g.buckets, unpack(gone))
      for i = 1, #gone, 2 do
        g.calls = g.calls - tonumber(found[i] or 0)
        g.tokens = g.tokens - tonumber(found[i + 1] or 0)
      end
      redis.call('HDEL', g.buckets, unpack(gone))
    end
    g.low = low
  end
  redis.call('ZREMRANGEBYSCORE', g.slots, '-inf', text(now))
end

local function group(place)
  local base = 4 * (place - 1)
  local g, known = read(KEYS[base + 1], FIELDS)
  g.known = known
  g.key, g.buckets, g.slots = KEYS[base + 1], KEYS[base + 2], KEYS[base + 3]
  if not known then
    g.calls_at, g.tokens_at, g.cold_at, g.throttle, g.ratio, g.took = now, now, now, 1, 1, 1
  end
  return g
end

local function save(g)
  write(g.key, g, FIELDS)
  redis.call('PEXPIRE', g.buckets, KEEP_MS)
  redis.call('PEXPIRE', g.slots, KEEP_MS)
end

local function throttle(g) return math.min(1, g.throttle + math.max(0, now - g.throttle_at) / RECOVERS_IN) end

local function lower(one, other)
  if one > 0 and other > 0 then return math.min(one, other) end
  return math.max(one, other)
end

local function effective(g, rpm, tpm)
  local said = now - g.stated_at < STATED_FOR
  return lower(rpm, said and g.rpm or 0) * throttle(g), lower(tpm, said and g.tpm or 0) * throttle(g)
end

local function free(g, which, surplus)
  local index, at = g.low, 0
  while surplus > 0 do
    at = (index + 1) * bucket_s + span
    if at > now + line then break end
    surplus = surplus - tonumber(redis.call('HGET', g.buckets, field(which, index)) or 0)
    index = index + 1
  end
  return at
end

local function earliest(g, rpm, tpm, calls, tokens)
  local start = math.max(now, g.blocked, g.line_at)
  if rpm > 0 then
    local whole = math.max(1, math.floor(rpm))
    start = math.max(start, g.calls_at, free(g, 'c', g.calls + math.min(calls, whole) - whole))
  end
  if tpm > 0 then
    start = math.max(start, g.tokens_at, free(g, 't', g.tokens + math.min(tokens, tpm) - tpm))
  end
  return start
end

-- Breakers ------------------------------------------------------------------------------------------------------------

local function shut_until(b)
  if b.cause == '' then return 0 end
  if now < b['until'] then return b['until'] end
  if now < b.probe then return math.min(b.probe, now + PROBE_ENDS) end
  return 0
end

local function put(b, cause, failures, opens, until_, probe)
  b.cause, b.failures, b.opens, b['until'], b.probe = cause, failures, opens, until_, probe
end

local function reopened(b, cause, first, longest)
  put(b, cause, 0, b.opens + 1, now + math.min(first * 2 ^ math.min(b.opens, 10), longest), 0)
end

local function door_after(b, verdict, probe)
  if verdict == 'unused' or verdict == 'unknown' then
    if probe then b.probe = 0 end
  elseif verdict == 'outage' then
    if b.cause ~= '' then
      if probe then reopened(b, 'outage', 5, 120) end
    elseif b.failures + 1 < 5 then
      put(b, '', b.failures + 1, 0, 0, 0)
    else
      reopened(b, 'outage', 5, 120)
    end
  elseif probe or b.cause == '' then
    put(b, '', 0, 0, 0, 0)
  end
end

local function purse_after(b, verdict, probe, told)
  local cause = nil
  if verdict == 'quota' then cause = 'quota' end
  if verdict == 'key' or verdict == 'forbidden' then cause = 'key' end
  if cause then
    if verdict == 'forbidden' and b.cause == '' and b.failures + 1 < 3 then
      put(b, '', b.failures + 1, 0, 0, 0)
    elseif b.cause == '' or probe then
      reopened(b, cause, 60, 300)
      if told > 0 then b['until'] = now + told end
    end
  elseif verdict == 'unused' or verdict == 'unknown' or verdict == 'outage' then
    if probe then b.probe = 0 end
  elseif probe or b.cause == '' then
    put(b, '', 0, 0, 0, 0)
  end
end

-- Operations ----------------------------------------------------------------------------------------------------------

-- ARGV[7..]: calls, tokens, parallel, ticket id, then for each place: rpm, tpm, slots (0: none), weight, and
-- whether these books lack calls (1), do so if they are not there (2), or nothing is known (0).
-- Answers {place, wait_s, bucket, parallel, door probe, purse probe} or {0, wait_s, reason}.
local function acquire()
  local calls, tokens, parallel, id = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
  local offers = {}
  for place = 1, #KEYS / 4 do
    local base = 10 + 5 * (place - 1)
    local g, purse = group(place), read(KEYS[4 * place], PURSE)
    local lacking = ARGV[base + 5] == '1' or (ARGV[base + 5] == '2' and not g.known)
    if lacking and (g.line_at == 0 or now - g.cold_at >= 10) then
      g.cold_at = now
      g.calls_at = math.max(g.calls_at, now + line)
      g.tokens_at = math.max(g.tokens_at, now + line)
    end
    forget(g)
    local o = {place = place, group = g, purse = purse, slots = tonumber(ARGV[base + 3]),
      weight = tonumber(ARGV[base + 4])}
    o.rpm, o.tpm = effective(g, tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2]))
    o.start = earliest(g, o.rpm, o.tpm, calls, tokens)
    local taken, load = redis.call('ZCARD', g.slots), 0
    if o.rpm > 0 then load = math.max(load, g.calls / o.rpm) end
    if o.tpm > 0 then load = math.max(load, g.tokens / o.tpm) end
    if o.slots > 0 then load = math.max(load, taken / o.slots) end
    o.load = math.min(1, load)
    o.full = o.slots > 0 and taken + math.min(parallel, o.slots) > o.slots
    local money = shut_until(purse)
    o.shut, o.quota = math.max(money, shut_until(g)), money > 0
    o.probe = g.cause ~= '' or purse.cause ~= ''
    offers[place] = o
  end

  local function better(a, b)
    if a.probe ~= b.probe then return a.probe end
    if a.start ~= b.start then return a.start < b.start end
    if a.load / a.weight ~= b.load / b.weight then return a.load / a.weight < b.load / b.weight end
    return a.group.calls / a.weight < b.group.calls / b.weight
  end
  local best = nil
  for _, o in ipairs(offers) do
    if o.shut == 0 and not o.full and o.start <= now + line and (not best or better(o, best)) then best = o end
  end

  if best then
    local g, purse, start = best.group, best.purse, best.start
    local bucket = math.floor(start / bucket_s)
    add(g, bucket, calls, tokens)
    if best.rpm > 0 then g.calls_at = math.max(g.calls_at, start - credit) + calls * unit(g, best.rpm) end
    if best.tpm > 0 then
      g.tokens_at = math.max(g.tokens_at, start - credit) + math.min(tokens * g.ratio, best.tpm) * unit(g, best.tpm)
    end
    g.line_at = start
    if best.slots > 0 then parallel = math.min(parallel, best.slots) end
    for number = 0, parallel - 1 do redis.call('ZADD', g.slots, text(now + slot_lease), id .. ':' .. number) end
    local door, money = g.cause ~= '', purse.cause ~= ''
    if door then g.probe = now + PROBE_LEASE end
    if money then
      purse.probe = now + PROBE_LEASE
      write(KEYS[4 * best.place], purse, PURSE)
    end
    for _, o in ipairs(offers) do save(o.group) end
    return {tostring(best.place), text(start - now), field('', bucket), tostring(parallel), door and '1' or '0',
      money and '1' or '0'}
  end

  local function recall(o, start)
    local g = o.group
    local at = math.max(g.recall_at, start)
    if at > math.max(start, now) + 2 * window then at = start end
    local step = 0.01
    if o.rpm > 0 then step = calls * (span + bucket_s) / o.rpm end
    if o.tpm > 0 then step = math.max(step, math.min(tokens * g.ratio, o.tpm) * (span + bucket_s) / o.tpm) end
    g.recall_at = at + step
    return math.max(at - now - math.min(1, line / 2), 0.05)
  end
  local usable, away, poor = nil, nil, nil
  for _, o in ipairs(offers) do
    if o.shut == 0 then
      if not usable or o.start < usable.start then usable = o end
    elseif not o.quota then
      if not away or o.shut < away.shut then away = o end
    elseif not poor or o.shut < poor.shut then
      poor = o
    end
  end
  local wait, reason
  if usable then
    local g = usable.group
    if usable.full and usable.start <= now + line then
      local at = math.max(g.slot_at, now)
      if at - now > 2 * window then at = now end
      g.slot_at = at + g.took / math.max(1, usable.slots)
      wait, reason = math.max(g.slot_at - now, 0.05), 'slots'
    else
      wait, reason = recall(usable, usable.start), 'rate'
    end
  elseif away then
    wait, reason = recall(away, away.shut), 'outage'
  else
    local turn = poor.purse.held % 43200
    poor.purse.held = poor.purse.held + 1
    write(KEYS[4 * poor.place], poor.purse, PURSE)
    wait, reason = poor.shut - now + turn * 2, 'quota'
  end
  for _, o in ipairs(offers) do save(o.group) end
  return {'0', text(wait), reason}
end

-- ARGV[7..]: verdict, bucket, charged calls, tokens, used calls, tokens ("" unknown, for what is learned), left calls,
-- left tokens, slots, ticket id, door probe, purse probe, block_s, took_s, told_s, rpm, tpm, then the hints: limit,
-- remaining, reset of calls, the same of tokens ("" is not said), how long "nothing left" of each is to be trusted, and how late it left.
-- Answers the causes of door and purse before and after.
local function give_back()
  local a = {}
  for i = 7, #ARGV do a[i - 6] = tonumber(ARGV[i]) or false end
  local verdict, id = ARGV[7], ARGV[16]
  local bucket, calls, tokens, used_tokens, left_calls, left_tokens = a[2], a[3], a[4], a[6], a[7], a[8]
  local door_probe, purse_probe = ARGV[17] == '1', ARGV[18] == '1'
  local g, purse = group(1), read(KEYS[4], PURSE)
  local door_was, purse_was = g.cause, purse.cause
  if not g.known then
    -- What was granted is not in these books: they were emptied since.
    g.calls_at, g.tokens_at = now + line, now + line
  end
  forget(g)
  for number = 0, a[9] - 1 do redis.call('ZREM', g.slots, id .. ':' .. number) end

  if a[18] or a[21] then g.rpm, g.tpm, g.stated_at = a[18] or 0, a[21] or 0, now end
  local rpm, tpm = effective(g, a[16], a[17])
  local blocked = 0
  if a[13] > 0 then blocked = now + a[13] end
  if a[24] and (rpm <= 0 or g.calls < 0.9 * rpm) then blocked = math.max(blocked, now + a[24]) end
  if a[25] and (tpm <= 0 or g.tokens < 0.9 * tpm) then blocked = math.max(blocked, now + a[25]) end
  if verdict == 'rate' and now >= g.blocked then
    g.throttle, g.throttle_at = math.max(0.1, 0.9 * throttle(g)), now
  end
  g.blocked = math.max(g.blocked, blocked)
  rpm, tpm = effective(g, a[16], a[17])

  local function gap(limit, remaining, reset, own)
    if not limit or not remaining or not reset or reset > 1.05 * window then return 0 end
    local found = limit - remaining - own
    if found > limit / 100 then return found end
    return 0
  end
  local more_calls = gap(a[18], a[19], a[20], g.calls + left_calls - calls)
  local more_tokens = gap(a[21], a[22], a[23], g.tokens + left_tokens - tokens)
  local kept = math.min(more_tokens, math.max(0, tokens - left_tokens))
  left_tokens, more_tokens = left_tokens + kept, more_tokens - kept

  local sent_in = bucket + math.floor(a[26] / bucket_s)
  if bucket >= g.low and (redis.call('HEXISTS', g.buckets, field('c', bucket)) == 1) then
    add(g, bucket, -calls, -tokens)
    add(g, sent_in, left_calls, left_tokens)
  elseif sent_in > bucket and sent_in >= g.low then
    add(g, sent_in, left_calls, left_tokens)
  end
  if verdict == 'unused' then
    if rpm > 0 then g.calls_at = g.calls_at - calls * unit(g, rpm) end
    if tpm > 0 then g.tokens_at = g.tokens_at - tokens * g.ratio * unit(g, tpm) end
  elseif used_tokens and tokens > 0 then
    g.ratio = g.ratio + (math.min(math.max(left_tokens / tokens, 0.02), 4) - g.ratio) / 16
  end

  if more_calls > 0 or more_tokens > 0 then
    local newest = math.floor(now / bucket_s)
    local each_calls, each_tokens = math.floor(more_calls / 12), math.floor(more_tokens / 12)
    for part = 0, 11 do
      local index = newest - part * 20
      if index >= g.low then
        if part == 0 then
          add(g, index, more_calls - 11 * each_calls, more_tokens - 11 * each_tokens)
        else
          add(g, index, each_calls, each_tokens)
        end
      end
    end
  end

  if a[14] then g.took = g.took + (math.min(math.max(a[14], 0.01), 600) - g.took) / 16 end
  door_after(g, verdict, door_probe)
  purse_after(purse, verdict, purse_probe, a[15])
  if purse.cause == '' then purse.held = 0 end
  save(g)
  write(KEYS[4], purse, PURSE)
  return {door_was, g.cause, purse_was, purse.cause}
end

-- ARGV[7..]: for each place: how many slots, and then these.
local function renew()
  local at = 7
  for place = 1, #KEYS / 4 do
    local count, key = tonumber(ARGV[at]), KEYS[4 * (place - 1) + 3]
    for i = at + 1, at + count do redis.call('ZADD', key, text(now + slot_lease), ARGV[i]) end
    redis.call('PEXPIRE', key, KEEP_MS)
    at = at + 1 + count
  end
  return {}
end

-- Answers for each place: its group's fields, slots taken, its purse's fields; and first of all, now.
local function headroom()
  local answer = {text(now)}
  for place = 1, #KEYS / 4 do
    local g, purse = group(place), read(KEYS[4 * place], PURSE)
    forget(g)
    if redis.call('EXISTS', g.key) == 1 then save(g) end
    for _, name in ipairs(FIELDS) do answer[#answer + 1] = text(g[name]) end
    answer[#answer + 1] = tostring(redis.call('ZCARD', g.slots))
    for _, name in ipairs(PURSE) do answer[#answer + 1] = text(purse[name]) end
  end
  return answer
end

if op == 'acquire' then return acquire() end
if op == 'give_back' then return give_back() end
if op == 'renew' then return renew() end
return headroom()
