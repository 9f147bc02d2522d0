"""ThingsBoard as the bridge meets it: REST client, connect event, rule chain, and an embedded stand-in."""
