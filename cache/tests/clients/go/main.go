// Command cache-clients puts go-redis, unchanged, against a running cache.
//
// Called with the port of a standalone node and that of a node in cluster mode. Panics at the first surprise.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

var ctx = context.Background()

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func expect[T comparable](what string, got, wanted T) {
	if got != wanted {
		panic(fmt.Sprintf("%s: %v, not %v", what, got, wanted))
	}
}

func values(r *redis.Client) {
	must(r.FlushAll(ctx).Result())
	must(r.Set(ctx, "s", "x", 100*time.Second).Result())
	expect("GET", must(r.Get(ctx, "s").Result()), "x")
	expect("SETNX", must(r.SetNX(ctx, "s", "y", 0).Result()), false)
	if ttl := must(r.PTTL(ctx, "s").Result()); ttl <= 0 || ttl > 100*time.Second {
		panic(ttl)
	}
	if err := r.Get(ctx, "nothing").Err(); !errors.Is(err, redis.Nil) {
		panic(err)
	}
	must(r.HSet(ctx, "h", "a", 1, "b", 2).Result())
	expect("HGETALL", must(r.HGetAll(ctx, "h").Result())["b"], "2")
	must(r.ZAdd(ctx, "z", redis.Z{Score: 1, Member: "a"}, redis.Z{Score: 2.5, Member: "b"}).Result())
	expect("ZRANGE", must(r.ZRangeWithScores(ctx, "z", 0, -1).Result())[1].Score, 2.5)
	must(r.RPush(ctx, "l", 1, 2, 3).Result())
	expect("LLEN", must(r.LLen(ctx, "l").Result()), 3)
	commands := must(r.Command(ctx).Result())
	expect("COMMAND GET", commands["get"].FirstKeyPos, 1)
}

func pipelines(r *redis.Client) {
	replies := must(r.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i := 0; i < 1000; i++ {
			pipe.Incr(ctx, "count")
		}
		return nil
	}))
	expect("INCR", replies[999].(*redis.IntCmd).Val(), 1000)
	must(r.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Set(ctx, "t", 1, 0)
		pipe.Incr(ctx, "t")
		return nil
	}))
	expect("MULTI", must(r.Get(ctx, "t").Int()), 2)

	// Loops of WATCH lose no update.
	var all sync.WaitGroup
	for i := 0; i < 8; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for done := 0; done < 20; {
				err := r.Watch(ctx, func(tx *redis.Tx) error {
					value, err := tx.Get(ctx, "t").Int()
					if err != nil {
						return err
					}
					_, err = tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
						pipe.Set(ctx, "t", value+1, 0)
						return nil
					})
					return err
				}, "t")
				if err == nil {
					done++
				} else if !errors.Is(err, redis.TxFailedErr) {
					panic(err)
				}
			}
		}()
	}
	all.Wait()
	expect("WATCH", must(r.Get(ctx, "t").Int()), 2+8*20)
}

func messages(r *redis.Client) {
	subscriber := r.Subscribe(ctx, "news")
	defer subscriber.Close()
	must(subscriber.Receive(ctx))
	expect("PUBLISH", must(r.Publish(ctx, "news", "hello").Result()), 1)
	expect("message", must(subscriber.ReceiveMessage(ctx)).Payload, "hello")
}

func waits(r *redis.Client) {
	popped := make(chan []string)
	go func() { popped <- must(r.BLPop(ctx, 10*time.Second, "q").Result()) }()
	must(r.RPush(ctx, "q", "x").Result())
	expect("BLPOP", (<-popped)[1], "x")
	if err := r.BLMove(ctx, "q", "q2", "left", "right", time.Second).Err(); !errors.Is(err, redis.Nil) {
		panic(err)
	}
}

func scans(r *redis.Client) {
	for i := 0; i < 500; i++ {
		must(r.Set(ctx, fmt.Sprint("scan:", i), i, 0).Result())
	}
	found := map[string]bool{}
	for keys := r.Scan(ctx, 0, "scan:*", 20).Iterator(); keys.Next(ctx); {
		found[keys.Val()] = true
	}
	expect("SCAN", len(found), 500)
}

func cluster(port string) {
	r := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:" + port}})
	defer r.Close()
	replies := must(r.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i := 0; i < 200; i++ {
			pipe.Set(ctx, fmt.Sprint("key:", i), i, time.Minute)
		}
		return nil
	}))
	expect("pipeline", len(replies), 200)
	expect("GET", must(r.Get(ctx, "key:77").Result()), "77")
	expect("CLUSTER SLOTS", must(r.ClusterSlots(ctx).Result())[0].End, 16383)
}

func main() {
	for _, protocol := range []int{2, 3} {
		r := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + os.Args[1], Protocol: protocol})
		values(r)
		pipelines(r)
		messages(r)
		waits(r)
		scans(r)
		r.Close()
	}
	cluster(os.Args[2])
	fmt.Printf("go-redis %s: all is well\n", redis.Version())
}
