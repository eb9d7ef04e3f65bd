// What Watermill does with a topic of Kafka, for the cells `kafka-watermill-*`; `../watermill.rs` builds and runs it.
//
//	watermill publish SERVERS TOPIC WARM COUNT PAYLOAD
//	watermill subscribe SERVERS TOPIC WARM COUNT GROUP
//
// It prints how long the COUNT messages behind the first WARM took, and the processor time of the process meanwhile, in nanoseconds.
package main

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Goroutines that publish, each one message after the other: as many as in Watermill's own benchmark.
const publishers = 64

// Goroutines that take messages over from the subscriber.
const handlers = 4

func main() {
	if len(os.Args) != 7 {
		panic("usage: see above")
	}
	servers, topic := strings.Split(os.Args[2], ","), os.Args[3]
	warm, count := number(os.Args[4]), number(os.Args[5])
	var wall, cpu time.Duration
	switch os.Args[1] {
	case "publish":
		wall, cpu = publish(servers, topic, warm, count, int(number(os.Args[6])))
	case "subscribe":
		wall, cpu = subscribe(servers, topic, warm, count, os.Args[6])
	}
	fmt.Println(wall.Nanoseconds(), cpu.Nanoseconds())
}

func publish(servers []string, topic string, warm, count int64, size int) (time.Duration, time.Duration) {
	settings := kafka.DefaultSaramaSyncPublisherConfig()
	settings.Version = sarama.V2_8_0_0
	settings.Producer.RequiredAcks = sarama.WaitForAll
	key := func(_ string, msg *message.Message) (string, error) { return msg.Metadata.Get("key"), nil }
	publisher, err := kafka.NewPublisher(kafka.PublisherConfig{
		Brokers:               servers,
		Marshaler:             keyed{kafka.NewWithPartitioningMarshaler(key)},
		OverwriteSaramaConfig: settings,
	}, watermill.NopLogger{})
	must(err)
	defer publisher.Close()
	payload := make([]byte, size)
	rand.New(rand.NewSource(1)).Read(payload[:size/2])
	send := func(from, to int64) {
		next := from
		var all sync.WaitGroup
		for range publishers {
			all.Add(1)
			go func() {
				defer all.Done()
				for i := atomic.AddInt64(&next, 1) - 1; i < to; i = atomic.AddInt64(&next, 1) - 1 {
					msg := message.NewMessage(watermill.NewUUID(), payload)
					msg.Metadata.Set("key", fmt.Sprintf("customer-%05d", i*7919%10000))
					msg.Metadata.Set("ce_type", "order.created")
					msg.Metadata.Set("ce_source", "/rivals")
					msg.Metadata.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
					must(publisher.Publish(topic, msg))
				}
			}()
		}
		all.Wait()
	}
	send(0, warm)
	return timed(func() { send(warm, warm+count) })
}

// The key is none of the headers.
type keyed struct{ kafka.MarshalerUnmarshaler }

func (k keyed) Marshal(topic string, msg *message.Message) (*sarama.ProducerMessage, error) {
	record, err := k.MarshalerUnmarshaler.Marshal(topic, msg)
	if err != nil {
		return nil, err
	}
	for i, header := range record.Headers {
		if string(header.Key) == "key" {
			record.Headers = append(record.Headers[:i], record.Headers[i+1:]...)
			break
		}
	}
	return record, nil
}

func subscribe(servers []string, topic string, warm, count int64, group string) (time.Duration, time.Duration) {
	settings := kafka.DefaultSaramaSubscriberConfig()
	settings.Version = sarama.V2_8_0_0
	settings.Consumer.Offsets.Initial = sarama.OffsetOldest
	subscriber, err := kafka.NewSubscriber(kafka.SubscriberConfig{
		Brokers:               servers,
		Unmarshaler:           kafka.DefaultMarshaler{},
		OverwriteSaramaConfig: settings,
		ConsumerGroup:         group,
	}, watermill.NopLogger{})
	must(err)
	messages, err := subscriber.Subscribe(context.Background(), topic)
	must(err)
	var seen int64
	begin, end := make(chan struct{}), make(chan struct{})
	for range handlers {
		go func() {
			for msg := range messages {
				msg.Ack()
				switch atomic.AddInt64(&seen, 1) {
				case warm:
					close(begin)
				case warm + count:
					close(end)
				}
			}
		}()
	}
	<-begin
	wall, cpu := timed(func() { <-end })
	must(subscriber.Close())
	return wall, cpu
}

func timed(work func()) (time.Duration, time.Duration) {
	start, used := time.Now(), cpu()
	work()
	return time.Since(start), cpu() - used
}

func cpu() time.Duration {
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	must(err)
	return n
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
