// Package supervisor starts processes, restarts those that end, and stops all of them
// in order.
//
//   - A process that ends is restarted after a second, like in Kubernetes, until it is
//     stopped permanently.
//   - [Supervisor.Stop] ends all processes within five seconds, stage by stage.
//   - On Linux no process outlives its supervisor, even if that is killed with SIGKILL:
//     the kernel sends each a signal when its parent ends.
package supervisor
