package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// askForBroker asks for the cluster's metadata, which must name a broker. A listener that
// only accepts connections proves nothing: the broker may still be fenced.
func askForBroker(ctx context.Context, addr string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RequestRetries(0), kgo.DialTimeout(time.Second))
	if err != nil {
		return err
	}
	defer client.Close()
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{}
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	if len(response.Brokers) == 0 {
		return fmt.Errorf("its broker is not ready")
	}
	return nil
}
