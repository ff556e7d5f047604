/* What -vnc says, part of config.h. */
#ifndef VMM_VNC_CONFIG_H
#define VMM_VNC_CONFIG_H

#include "base/base.h"
#include "base/list.h"

struct vnc_config {
	struct list link;
	char *source, *id;
	char *host; /* NULL: this machine only */
	char *path; /* of a unix socket; NULL: host and port */
	u32 port, port_last;
	char *ws_host;
	u32 ws_port;	     /* 0: no WebSocket */
	bool password, none; /* none: a name only, nobody can connect */
	bool no_ipv4, no_ipv6;
	int share; /* as enum vnc_share */
};
void vnc_config_free(struct vnc_config *v);

#endif
