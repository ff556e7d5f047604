/* `user`: a network of the guest's own behind the process, by libslirp: DHCP, DNS,
 * TFTP, TCP and UDP to the host's network, ports forwarded.  Thread: main. */
#ifndef DEVICES_NET_USER_H
#define DEVICES_NET_USER_H

#include "base/opts.h"
#include "base/printer.h"
#include "devices/net/net.h"

#include <slirp/libslirp.h>

struct user_net;

#define USER_NET_KEYS                                                                              \
	"ipv4 ipv6 net host dhcpstart dns dnssearch domainname hostname restrict tftp "            \
	"tftp-server-name bootfile ipv6-net ipv6-prefix ipv6-prefixlen ipv6-host ipv6-dns "        \
	"hostfwd guestfwd smb smbserver"

/* name as in net_end_init; opts: those of USER_NET_KEYS are looked at. */
int user_net_new(struct net_end **out, struct net *net, const char *name, const struct opts *opts,
		 struct error *err);
bool net_is_user(const struct net_end *end);
/* "[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport", without what is behind the '-'
 * to remove one.  -ENOENT, without a message: there is no such rule. */
int user_net_forward(struct net_end *end, const char *rule, struct error *err);
int user_net_unforward(struct net_end *end, const char *rule, struct error *err);
void user_net_info(struct net_end *end, struct printer *p);

/* user_config.c: what the options say; strings are lent by them, `search` is freed by
 * the caller. */
struct user_config {
	SlirpConfig slirp;
	const char **search;
};
int user_config_parse(struct user_config *c, const struct opts *opts, struct error *err);

/* A forwarding rule, taken apart. */
struct user_forward {
	bool udp;
	struct in_addr host, guest;
	u16 host_port, guest_port;
};
int user_forward_parse(struct user_forward *f, const char *rule, bool with_guest,
		       struct error *err);
bool user_parse_port(const char *text, bool zero_is_fine, u16 *port);
/* Cut the field before sep off *rest; NULL: there is no sep. */
char *user_cut(char **rest, char sep);

/* user_guestfwd.c: "tcp:10.0.2.100:80-cmd:program" and the like, applied.  What it needs
 * goes into the list; update: libslirp may take more than before. */
struct user_place {
	Slirp *slirp;
	struct loop *loop;
	struct list forwards;
};
int user_guestfwd_add(struct user_place *p, const char *rule, struct error *err);
void user_guestfwd_update(struct user_place *p);
void user_guestfwd_free(struct user_place *p); /* libslirp has gone */

#endif
