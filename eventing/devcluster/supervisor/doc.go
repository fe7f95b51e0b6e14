// Package supervisor starts processes, restarts those that die, and ends all of them in
// order.
//
//   - A process that dies is restarted after a second, as Kubernetes would, until it is
//     stopped for good.
//   - [Supervisor.Stop] ends everything within five seconds, stage by stage.
//   - On Linux no process outlives its supervisor, even if that is killed with SIGKILL:
//     the kernel sends each a signal when its parent dies.
package supervisor
