package limiter

import "time"

// Window is a calendar window.
type Window uint8

// The windows. Each begins where its first second begins on the clocks of the zone: a day of a change of time has 23 or 25 hours.
// A week begins on Monday (ISO 8601).
const (
	Minute Window = iota
	Hour
	Day
	Week
	Month
	Year
)

// bounds are the first second of the window that t is in and that of the next, in seconds since 1970. Windows of a zone follow each other
// without gap and never overlap, whatever the zone's clocks do.
func (w Window) bounds(t time.Time, zone *time.Location) (start, end int64) {
	if zone == nil {
		zone = time.UTC
	}
	t = t.In(zone)
	y, m, d := t.Date()
	switch w {
	case Minute:
		return short(t, 60)
	case Hour:
		return short(t, 3600)
	case Week:
		d -= (int(t.Weekday()) + 6) % 7
		return midnight(y, m, d, zone), midnight(y, m, d+7, zone)
	case Month:
		return midnight(y, m, 1, zone), midnight(y, m+1, 1, zone)
	case Year:
		return midnight(y, 1, 1, zone), midnight(y+1, 1, 1, zone)
	default:
		return midnight(y, m, d, zone), midnight(y, m, d+1, zone)
	}
}

// short is a window of n seconds by the zone's clocks, cut where their offset changes within it (Lord Howe shifts by half an hour).
func short(t time.Time, n int64) (start, end int64) {
	_, offset := t.Zone()
	u := t.Unix()
	local := u + int64(offset)
	start = u - (local%n+n)%n
	end = start + n
	from, until := t.ZoneBounds()
	if !from.IsZero() {
		start = max(start, from.Unix())
	}
	if !until.IsZero() {
		end = min(end, until.Unix())
	}
	return start, end
}

// midnight is the first second of a date. time.Date may answer either side of a change of time; where clocks skip midnight (America/Sao_Paulo
// until 2018) or pass it twice (America/Havana) only one is right: the earliest at which the clocks show the date.
func midnight(y int, m time.Month, d int, zone *time.Location) int64 {
	naive := time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix()
	const day = 86400
	_, before := time.Unix(naive-day, 0).In(zone).Zone()
	_, after := time.Unix(naive+day, 0).In(zone).Zone()
	first, second := naive-int64(before), naive-int64(after)
	if second < first {
		first, second = second, first
	}
	if _, o := time.Unix(first, 0).In(zone).Zone(); first+int64(o) >= naive {
		return first
	}
	return second
}

// ask tells whether cost passes when count was used, of which the entry's window ends at end (seconds).
func (q *Quota) ask(count, end, now, prior, cost int64) part {
	count += prior
	a := part{index: ByQuota, reset: end*1e9 - now}
	a.ok = count <= q.Limit && cost <= q.Limit-count
	switch {
	case a.ok:
		count += cost
	case cost > q.Limit:
		a.retry = never
	default:
		a.retry = a.reset
	}
	a.remaining = max(q.Limit-count, 0)
	return a
}
