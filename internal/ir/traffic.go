package ir

// Traffic is how requests are spread over a cluster's endpoints and what happens when one fails (BackendTrafficPolicy). nil
// fields take the defaults of package upstream.
type Traffic struct {
	Source   Source    `json:"source"`
	Balancer *Balancer `json:"balancer,omitempty"`
	Affinity *Affinity `json:"affinity,omitempty"`
	Connect  *Duration `json:"connect,omitempty"`
	First    *Duration `json:"firstByte,omitempty"`
	Total    *Duration `json:"total,omitempty"` // the whole exchange, unless the route says; 0: none
	Retry    *Retry    `json:"retry,omitempty"`
	Budget   *Budget   `json:"budget,omitempty"`
	Breaker  *Breaker  `json:"breaker,omitempty"`
	Active   *Active   `json:"active,omitempty"`
	Passive  *Passive  `json:"passive,omitempty"`
}

// Balancers.
const (
	RoundRobin     = "RoundRobin"
	LeastRequest   = "LeastRequest"
	ConsistentHash = "ConsistentHash"
)

// Balancer says how an endpoint is chosen.
type Balancer struct {
	Algorithm string   `json:"algorithm,omitempty"` // "" RoundRobin
	Hash      *Hash    `json:"hash,omitempty"`      // ConsistentHash only
	SlowStart Duration `json:"slowStart,omitempty"` // over which an endpoint that comes later gets its full share
}

// What a consistent hash is made of.
const (
	HashHeader  = "Header"
	HashCookie  = "Cookie"
	HashAddress = "ClientAddress"
)

// Hash is the key of a consistent hash. A request without it is spread by turns.
type Hash struct {
	By   string `json:"by"`
	Name string `json:"name,omitempty"` // of the header (lower case) or cookie
	// Load bounds what one endpoint gets: at most this many percent of the average of requests in flight; 0: no bound.
	Load int `json:"load,omitempty"`
}

// Affinity keeps a client's requests on one endpoint (GEP-1619), by a cookie or by a header that the client sends back.
type Affinity struct {
	Cookie   string   `json:"cookie,omitempty"`   // name; exactly one of Cookie and Header
	Header   string   `json:"header,omitempty"`   // name
	MaxAge   Duration `json:"maxAge,omitempty"`   // of the cookie; 0: until the browser ends
	Absolute Duration `json:"absolute,omitempty"` // after which a session begins anew; 0: never
	Source   Source   `json:"source"`
}

// Conditions under which a request is tried again, beside status codes.
const (
	ConnectFailure = "ConnectFailure" // no connection
	Reset          = "Reset"          // the connection ended before a response head
	FirstByte      = "Timeout"        // no response head in the time of a try
)

// Retry says when a request is tried again (GEP-1731).
type Retry struct {
	Attempts   int       `json:"attempts"` // beside the first; 0: never
	Codes      []int     `json:"codes,omitempty"`
	Conditions []string  `json:"conditions,omitempty"`
	Backoff    Duration  `json:"backoff,omitempty"`       // before the first further try, doubled for each next one
	PerTry     *Duration `json:"perTryTimeout,omitempty"` // nil: none but the others
	Source     Source    `json:"source"`
}

// Budget bounds how many requests to a cluster are further tries: a percentage of the requests of an interval, or a lowest rate,
// whichever lets more through (GEP-3388).
type Budget struct {
	Percent     int      `json:"percent"`
	Interval    Duration `json:"interval"`
	MinCount    int      `json:"minCount"`
	MinInterval Duration `json:"minInterval"`
}

// Breaker bounds what a cluster gets at once from this process; 0: no bound.
type Breaker struct {
	MaxConnections int `json:"maxConnections,omitempty"`
	MaxRequests    int `json:"maxRequests,omitempty"`
}

// Active asks every endpoint for its health at an interval.
type Active struct {
	Path      string   `json:"path"`
	Host      string   `json:"host,omitempty"` // "": the endpoint's address
	Interval  Duration `json:"interval"`
	Timeout   Duration `json:"timeout"`
	Healthy   int      `json:"healthy"`   // successes in a row that bring an endpoint back
	Unhealthy int      `json:"unhealthy"` // failures in a row that take it out
	Statuses  []int    `json:"statuses,omitempty"`
}

// Passive takes an endpoint out that fails real requests.
type Passive struct {
	Failures int      `json:"failures"` // in a row
	Codes    []int    `json:"codes,omitempty"`
	EjectFor Duration `json:"ejectFor"`   // times the number of ejections in a row
	MaxOut   int      `json:"maxEjected"` // percent of the endpoints
}
