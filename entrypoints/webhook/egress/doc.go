// Package egress calls the addresses that subscribers name, and no others: not the gateway's own
// machine, not the network behind it, not the metadata service of its cloud.
//
// A callback is checked twice. [Policy.CheckURL] refuses at once, with a reason, what can be
// seen to be wrong in the URL. What cannot be talked around is the check of the address that a
// connection is being made to, after name resolution and right before connect: a name that
// resolves to something else the second time gets nowhere, because what is checked is what is
// connected to. A connection that is kept was checked when it was made. Redirects are not followed.
//
// With a proxy the last step is the proxy's: it resolves the names, so that it has to keep them
// away from where they must not go. Literal addresses, names and the list of hosts are checked
// here all the same.
package egress
