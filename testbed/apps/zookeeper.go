package apps

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

const zookeeperNodes = 200

var zookeeper = App{
	Name: "zookeeper", Images: []string{"app-zookeeper"},
	Loaded:    "200 nodes, sequential nodes, a node changed twice, one with an access list; three members",
	workloads: []string{"statefulset/zookeeper"},
	load:      loadZookeeper, check: checkZookeeper, write: writeZookeeper,
}

// zookeeperShell gives commands to the client that ZooKeeper brings along, through the member of a pod. It says what it
// did on its standard error.
func zookeeperShell(ctx context.Context, p Place, pod string, commands ...string) (string, error) {
	// Its exit code is that of the last command.
	return p.feed(ctx, pod, strings.Join(commands, "\n")+"\n", "sh", "-c", "java -XX:TieredStopAtLevel=1 -Xmx48m -cp /usr/share/java/zookeeper.jar "+
		"org.apache.zookeeper.ZooKeeperMain -server 127.0.0.1:2181 -waitforconnection 2>&1 || true")
}

func loadZookeeper(ctx context.Context, p Place) (any, error) {
	commands := []string{"create /known", "create /queue", "create /scratch", "create /changed one", "set /changed two", "set /changed three"}
	for i := range zookeeperNodes {
		commands = append(commands, fmt.Sprintf("create /known/node-%03d value-%d", i, i*i))
	}
	commands = append(commands,
		"create -s /queue/job- a", "create -s /queue/job- b", "create -s /queue/job- c", "delete /queue/job-0000000001",
		"addauth digest ann:secret", "create /closed x auth:ann:secret:cdrwa", "sync /")
	out, err := zookeeperShell(ctx, p, "zookeeper-0", commands...)
	if err == nil && !strings.Contains(out, "Created /closed") {
		err = fmt.Errorf("the last node was not created: %.300q", out)
	}
	return nil, err
}

func writeZookeeper(ctx context.Context, p Place, n int) error {
	out, err := zookeeperShell(ctx, p, "zookeeper-1", fmt.Sprintf("create /scratch/n-%d %d", n, n))
	if err == nil && !strings.Contains(out, "Created /scratch/") {
		err = fmt.Errorf("no node was created: %.300q", out)
	}
	return err
}

var zookeeperValue = regexp.MustCompile(`(?m)^value-\d+$`)

func checkZookeeper(ctx context.Context, p Place, _ any) error {
	for _, pod := range []string{"zookeeper-0", "zookeeper-1", "zookeeper-2"} {
		if err := until(ctx, func(ctx context.Context) error { return zookeeperHas(ctx, p, pod) }); err != nil {
			return err
		}
	}
	steps := []struct{ pod, want, commands string }{
		{"zookeeper-1", "Created /queue/job-0000000003", "create -s /queue/job- after"},
		{"zookeeper-1", "dataVersion = 3", "set /changed four;stat /changed"},
		{"zookeeper-2", "four", "sync /;get /changed"},
		{"zookeeper-0", "Insufficient permission : /closed", "get /closed"},
		{"zookeeper-0", "'ann:", "addauth digest ann:secret;getAcl /closed"},
	}
	for _, step := range steps {
		out, err := zookeeperShell(ctx, p, step.pod, strings.Split(step.commands, ";")...)
		if err != nil || !strings.Contains(out, step.want) {
			return errors.Join(err, fmt.Errorf("%s in %s: %.500q, want %q", step.commands, step.pod, out, step.want))
		}
	}
	return nil
}

// zookeeperHas compares the nodes as one member has them.
func zookeeperHas(ctx context.Context, p Place, pod string) error {
	commands := []string{"sync /"}
	var want []string
	for i := range zookeeperNodes {
		commands = append(commands, fmt.Sprintf("get /known/node-%03d", i))
		want = append(want, fmt.Sprintf("value-%d", i*i))
	}
	commands = append(commands, "ls /queue", "get /changed")
	out, err := zookeeperShell(ctx, p, pod, commands...)
	if err != nil {
		return err
	}
	if got := zookeeperValue.FindAllString(out, -1); strings.Join(got, " ") != strings.Join(want, " ") {
		return fmt.Errorf("%s has %d of %d nodes as they were: %.300q", pod, len(got), len(want), out)
	}
	for _, want := range []string{"[job-0000000000, job-0000000002]", "three"} {
		if !strings.Contains(out, want) {
			return fmt.Errorf("%s lacks %q", pod, want)
		}
	}
	return nil
}
