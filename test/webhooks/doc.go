// Package webhooks counts what two gateways on a shared storage deliver to a receiver that fails
// at random (5xx, no answer, resets, drop by drop, half responses, 429), while gateways are killed and
// ended, the broker is killed, and configurations are reloaded.
//
// For every message it is known when it was produced, when it was first sent, when it was first
// taken (the receiver had decided for a 2xx), and what lies in the dead-letter queue, which a client
// of the broker reads that is not ours. Counted are
//
//   - attempts: requests that came; repeated: 2xx for a message that had been taken before, which is
//     the price of at least once;
//   - dead: messages with a dead letter. Poison (400 for ever) and stubborn ones (500 for ever) must be
//     among them, with reason, attempts, last status and original position;
//   - lost: neither taken nor dead. Must be 0;
//   - out of order: sent before the message before it in its key was taken for the first time, or sent
//     for the first time if it is dead. Must be 0;
//   - wrong: invented, damaged, with a signature or webhook-id that is not right, tried too often, or a
//     dead letter that tells something else than what happened. Must be 0.
//
// The books are kept by the package ledger, the receiver is the package receiver. TestKafka and
// TestRabbitMQ do it with 10,000 messages, two kills and one restart of the broker; with
// MESSAGE_API_SOAK=1 with 100,000 messages, ten kills, and two restarts. TestBlackHoles measures
// what subscriptions whose callbacks never answer do to others.
package webhooks
