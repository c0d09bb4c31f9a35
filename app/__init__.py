"""What a module imports: configuration, errors and the heartbeat, under the names the module guide promises."""
