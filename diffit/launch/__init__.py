"""Run a training: in this process, in several processes of this machine, or as a job of a cluster."""
