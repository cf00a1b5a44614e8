// Package limits keeps account of what the clients of a plan use: requests by rate and
// quota, and messages in each direction by rate.
//
// A Table holds one Account for each client of each plan, for as long as the process
// lives, so that neither a reload nor a redeploy gives a client a fresh allowance. Rates are
// token buckets: a client that was quiet may use its whole number at once, and from then on
// gets it evenly. Quotas are counted in Counters, which outlive the process and are added up
// between nodes.
//
// The package knows neither Caddy nor HTTP routing: it does the arithmetic, and says in a
// Decision what came of it.
package limits
