// Package load makes HTTP load and reads what comes back, as cheaply as possible, so that
// it is the server that is measured: one thread, one epoll, system calls without the
// runtime's poller, and no parsing beyond what counting takes.
//
// Messages are counted by Marker, a byte that stands once in each message's content and
// nowhere else on the wire: one scan counts whole bursts, however they were cut by
// chunked encoding, and a message that is lost or doubled is noticed. Damage and disorder
// are what the tests look for.
package load
