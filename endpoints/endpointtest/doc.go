// Package endpointtest is the contract between the gateway and a broker as something that
// runs: one suite of promises that every endpoint passes.
//
// A guest's own tests set the endpoint up in front of a broker (or its double) and call
// Run:
//
//	func TestPromises(t *testing.T) {
//		broker := startBroker(t)
//		endpointtest.Run(t, endpointtest.Harness{
//			New: func(t *testing.T) *endpointtest.Rig {
//				channel := broker.CreateChannel(t)
//				return &endpointtest.Rig{
//					Endpoint: provision(t, channel), // cleans up with t.Cleanup
//					Produce:  func(t *testing.T, m ...*message.Message) { … },
//					Consume:  func(t *testing.T, n int) []*message.Message { … },
//					Cut:      func(t *testing.T) { … },
//					Restore:  func(t *testing.T) { … },
//				}
//			},
//			Keys: true, Headers: true,
//		})
//	}
//
// Which promises are checked follows from the endpoint's Capabilities and from the hooks
// that the rig has; a hook that is nil takes its promises away. Run logs one line that
// names the promises that were checked and those that do not apply, and why. Run one of
// them with `go test -run 'TestPromises/resume'`; promises about reading are checked for
// each way to subscribe, as in `resume/assigned`.
//
// The promises stand in promises.go; each is one function in the file of its concern.
//
// Fake is an endpoint without a broker, for the tests of other packages: its capabilities
// are set at will, and its broker fails when told to. It passes the suite too.
package endpointtest
