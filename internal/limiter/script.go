package limiter

import (
	"encoding/hex"
	"strconv"
)

// What lies in the store, all under one hash tag, so that one script may touch it all, in a Redis Cluster too:
//
//	gatehouse:{limits}:<key>          hash: t (server time in us), f (shape of the limit), 1, 2 ... (events of each rate still owed)
//	gatehouse:{limits}:<key>:<start>  number of events in the quota's window that begins at start (seconds)
//	gatehouse:{limits}:from:<process> number of the last batch of reports, so that one that is sent again counts once
//
// Owed events drain at Limit/Period. They are doubles: an hour of a million events a second adds up to an error below one event.
// The server's clock is used, so that clocks of processes do not matter, but for where a quota's window begins.

// luaState reads and writes the owed events of keys. A key that comes twice in a batch is read once.
const luaState = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local at, states = 1, {}
local function arg() at = at + 1; return ARGV[at - 1] end
local function num() return tonumber(arg()) end
local function state(key, shape, n)
  local s = states[key]
  if not s then
    local f = {'t', 'f'}
    for j = 1, n do f[j + 2] = tostring(j) end
    local h = redis.call('HMGET', key, unpack(f))
    s = {b = {}, r = {}, dt = math.max(0, now - (tonumber(h[1]) or now)), other = h[2] and h[2] ~= shape, shape = shape}
    for j = 1, n do s.b[j] = tonumber(h[j + 2] or 0) end
    states[key] = s
  end
  return s
end
-- owed is what rate j owes after draining until us before now.
local function owed(s, j, r, burst, us)
  local b = s.b[j] or 0
  if not s.r[j] then
    s.r[j] = r
    if s.other then b = math.min(b, math.max(burst, 0)) end
    b = math.max(0, b - math.max(0, s.dt - us) * r)
    s.b[j] = b
  end
  return b
end
local function save()
  for key, s in pairs(states) do
    local f, wait = {'t', string.format('%.0f', now), 'f', s.shape}, 0
    for j = 1, #s.r do
      f[#f + 1] = tostring(j)
      f[#f + 1] = string.format('%.17g', s.b[j])
      wait = math.max(wait, s.b[j] / s.r[j])
    end
    if #s.r > 0 then
      redis.call('HSET', key, unpack(f))
      redis.call('PEXPIRE', key, string.format('%.0f', math.min(math.ceil(wait / 1000) + 1000, 4e12)))
    end
  end
end
local function us(x) return math.min(math.ceil(x), 9e15) end
`

// luaAsk decides a batch: KEYS are pairs of (rates, window). Per ask ARGV has cost, peek, shape, number of rates, per rate its events in a
// us and its burst, and the quota's limit (-1: none) and expiry. It answers, after 1 or 0 for the batch, per rate {passes, left, us
// until full, us to wait or -1}, and per quota what was used before.
const luaAsk = luaState + `
local out, ok, counts, adds = {1}, true, {}, {}
for a = 1, #KEYS, 2 do
  local cost, peek, shape, n = num(), num(), arg(), num()
  local s, taken, pass = state(KEYS[a], shape, n), {}, true
  for j = 1, n do
    local r, burst = num(), num()
    local b = owed(s, j, r, burst, 0)
    local next = b + cost
    local fits, wait = next <= burst + 1e-6, 0
    if fits then
      taken[j] = next
      b = next
    else
      pass = false
      wait = cost > burst and -1 or us((next - burst) / r)
    end
    out[#out + 1] = fits and 1 or 0
    out[#out + 1] = math.min(math.max(math.floor(burst - b + 1e-6), 0), 9e15)
    out[#out + 1] = us(b / r)
    out[#out + 1] = wait
  end
  local limit, expires = num(), arg()
  local q = KEYS[a + 1]
  if limit >= 0 then
    counts[q] = counts[q] or tonumber(redis.call('GET', q) or 0)
    out[#out + 1] = counts[q]
    if counts[q] + cost > limit then pass = false end
  end
  ok = ok and pass
  if pass and peek == 0 then
    for j = 1, n do s.b[j] = taken[j] end
    if limit >= 0 then
      counts[q] = counts[q] + cost
      adds[#adds + 1] = {q, cost, expires}
    end
  end
end
if not ok then out[1] = 0; return out end
save()
for _, x in ipairs(adds) do
  redis.call('INCRBY', x[1], string.format('%.0f', x[2]))
  redis.call('EXPIREAT', x[1], x[3])
end
return out
`

// luaReport counts what was decided elsewhere. KEYS[1] is the process, then pairs as above; ARGV[1] is the number of the batch. Per report
// ARGV has the events of rates, the age of the oldest in us, shape, number of rates with events in a us and burst each, the events
// of the quota and the window's expiry ("": none). It answers per rate the us until full, and per quota what is used.
const luaReport = luaState + `
local batch = arg()
local again = redis.call('GET', KEYS[1]) == batch
if not again then redis.call('SET', KEYS[1], batch, 'EX', 3600) end
local out = {}
for a = 2, #KEYS, 2 do
  local cost, age, shape, n = num(), num(), arg(), num()
  if again then cost = 0 end
  local s = state(KEYS[a], shape, n)
  for j = 1, n do
    local r, burst = num(), num()
    local b = owed(s, j, r, burst, age)
    -- What came over some time drained meanwhile too.
    b = math.max(0, b + cost - math.min(age, s.dt) * r)
    s.b[j] = b
    out[#out + 1] = us(b / r)
  end
  s.dt = 0
  local count, expires = arg(), arg()
  if expires ~= '' then
    local q = KEYS[a + 1]
    if again or count == '0' then
      out[#out + 1] = tonumber(redis.call('GET', q) or 0)
    else
      out[#out + 1] = redis.call('INCRBY', q, count)
      redis.call('EXPIREAT', q, expires)
    end
  end
end
save()
return out
`

// call is what a script is given.
type call struct{ keys, args []string }

func number(n int64) string { return strconv.FormatInt(n, 10) }

// key adds the keys of an ask: of its rates, and of its quota's window.
func (c *call) key(prefix string, k *Key, start int64) {
	name := prefix + hex.EncodeToString(k[:])
	c.keys = append(c.keys, name, name+":"+number(start))
}

// rates adds shape, number and rates of a limit. A rate that lets nothing pass has a burst of -1.
func (c *call) rates(lim *Limit) {
	c.args = append(c.args, strconv.FormatUint(uint64(shape(lim.Rates, nil)), 36), number(int64(len(lim.Rates))))
	for i := range lim.Rates {
		r := &lim.Rates[i]
		perUS, burst := 1.0, int64(-1)
		if r.Limit > 0 {
			perUS, burst = float64(r.Limit)*1e3/float64(max(r.Period, 1)), r.burst()
		}
		c.args = append(c.args, strconv.FormatFloat(perUS, 'g', -1, 64), number(burst))
	}
}

// ask adds a question, with the window of its quota.
func (c *call) ask(prefix string, a *Ask, start, end int64) {
	c.key(prefix, &a.Key, start)
	peek := int64(0)
	if a.Peek {
		peek = 1
	}
	c.args = append(c.args, number(max(a.Cost, 0)), number(peek))
	c.rates(a.Limit)
	if q := a.Limit.Quota; q != nil {
		c.args = append(c.args, number(max(q.Limit, 0)), number(end+3600))
	} else {
		c.args = append(c.args, "-1", "")
	}
}

// report adds what was counted.
func (c *call) report(prefix string, r *report, now int64) {
	c.key(prefix, &r.key, r.start)
	age := int64(0)
	if r.since > 0 {
		age = max(now-r.since, 0) / 1000
	}
	c.args = append(c.args, number(r.rates), number(age))
	c.rates(r.limit)
	if r.limit.Quota != nil && r.end != 0 {
		c.args = append(c.args, number(r.quota), number(r.end+3600))
	} else {
		c.args = append(c.args, "0", "")
	}
}
