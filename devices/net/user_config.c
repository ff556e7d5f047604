/* What the options of a `user` network mean; see user.h.  Thread: main. */
#include "devices/net/user.h"

#include <errno.h>
#include <stdio.h>

#define NAME_MOST 255u

/* --- addresses ---------------------------------------------------------------------- */

/* Classful masks of addresses that are given without one, as inet_netof(3) has it. */
static u32 default_mask(u32 net)
{
	if (net >> 31 == 0)
		return 0xff000000;
	return (net >> 30) == 2 ? 0xffff0000 : 0xffffff00;
}

static int parse_network(struct user_config *c, const char *text, struct error *err)
{
	AUTO_FREE char *addr = xstrdup(text);
	char *mask = strchr(addr, '/'), *end;
	struct in_addr net, bits;
	unsigned long n;

	if (mask)
		*mask++ = 0;
	if (!inet_aton(addr, &net))
		return err_set(err, -EINVAL, "Failed to parse netmask");
	if (!mask) {
		bits.s_addr = htonl(default_mask(ntohl(net.s_addr)));
	} else if (strchr(mask, '.')) {
		if (!inet_aton(mask, &bits))
			return err_set(err, -EINVAL, "Failed to parse netmask (trailing chars)");
	} else {
		n = strtoul(mask, &end, 10);
		if (end == mask || *end)
			return err_set(err, -EINVAL, "Failed to parse netmask (trailing chars)");
		if (n < 4 || n > 32)
			return err_set(err, -EINVAL,
				       "Invalid netmask provided (must be in range 4-32)");
		bits.s_addr = htonl((u32)(UINT64_MAX << (32 - n)));
	}
	c->slirp.vnetmask = bits;
	c->slirp.vnetwork.s_addr = net.s_addr & bits.s_addr;
	return 0;
}

static void place_hosts(SlirpConfig *s)
{
	u32 net = s->vnetwork.s_addr, hosts = ~s->vnetmask.s_addr;

	s->vhost.s_addr = net | (htonl(0x0202) & hosts);
	s->vdhcp_start.s_addr = net | (htonl(0x020f) & hosts);
	s->vnameserver.s_addr = net | (htonl(0x0203) & hosts);
}

static int parse_addr(const struct opts *o, const char *key, struct in_addr *to, const char *what,
		      struct error *err)
{
	const char *text = opts_get(o, key);

	if (text && !inet_aton(text, to))
		return err_set(err, -EINVAL, "Failed to parse %s", what);
	return 0;
}

static bool in_network(const SlirpConfig *s, struct in_addr addr)
{
	return (addr.s_addr & s->vnetmask.s_addr) == s->vnetwork.s_addr;
}

static int parse_ipv4(struct user_config *c, const struct opts *o, struct error *err)
{
	SlirpConfig *s = &c->slirp;
	const char *net = opts_get(o, "net");

	if (!s->in_enabled && (net || opts_has(o, "host") || opts_has(o, "dns")))
		return err_set(err, -EINVAL, "IPv4 disabled but netmask/host/dns provided");
	if (parse_network(c, net ? net : "10.0.2.0/24", err) < 0)
		return err->code;
	place_hosts(s);
	if (parse_addr(o, "host", &s->vhost, "host", err) < 0)
		return err->code;
	if (!in_network(s, s->vhost))
		return err_set(err, -EINVAL, "Host doesn't belong to network");
	if (parse_addr(o, "dhcpstart", &s->vdhcp_start, "DHCP start address", err) < 0)
		return err->code;
	if (!in_network(s, s->vdhcp_start))
		return err_set(err, -EINVAL, "DHCP doesn't belong to network");
	if (parse_addr(o, "dns", &s->vnameserver, "DNS", err) < 0)
		return err->code;
	if (s->vdhcp_start.s_addr == s->vhost.s_addr ||
	    s->vdhcp_start.s_addr == s->vnameserver.s_addr)
		return err_set(err, -EINVAL, "DHCP must be different from host and DNS");
	if (s->vnameserver.s_addr == s->vhost.s_addr)
		return err_set(err, -EINVAL, "DNS must be different from host");
	return 0;
}

/* --- version 6 ------------------------------------------------------------------------ */

static bool same_prefix(const struct in6_addr *a, const struct in6_addr *b, unsigned bits)
{
	unsigned bytes = bits / 8, rest = bits % 8;

	if (memcmp(a, b, bytes))
		return false;
	return !rest || (a->s6_addr[bytes] ^ b->s6_addr[bytes]) >> (8 - rest) == 0;
}

static int parse_prefix(struct user_config *c, const struct opts *o, struct error *err)
{
	const char *net = opts_get(o, "ipv6-net"), *len = opts_get(o, "ipv6-prefixlen");
	AUTO_FREE char *addr = NULL;
	char *slash;
	u64 bits = 64;

	if (!net)
		net = opts_has(o, "ipv6-prefix") ? opts_get(o, "ipv6-prefix") : "fec0::";
	addr = xstrdup(net);
	slash = strchr(addr, '/');
	if (slash) {
		*slash = 0;
		len = slash + 1;
	}
	if (inet_pton(AF_INET6, addr, &c->slirp.vprefix_addr6) != 1)
		return err_set(err, -EINVAL, "Failed to parse IPv6 prefix");
	if (len && parse_u64(len, &bits) < 0)
		return err_set(err, -EINVAL, "Parameter 'ipv6-prefixlen' expects a number");
	if (bits > 126)
		return err_set(err, -EINVAL,
			       "Invalid IPv6 prefix provided (IPv6 prefix length must be between 0 "
			       "and 126)");
	c->slirp.vprefix_len = (u8)bits;
	return 0;
}

static int parse_addr6(const struct opts *o, const char *key, struct in6_addr *to, const char *what,
		       struct error *err)
{
	const char *text = opts_get(o, key);

	if (text && inet_pton(AF_INET6, text, to) != 1)
		return err_set(err, -EINVAL, "Failed to parse IPv6 %s", what);
	return 0;
}

static int parse_ipv6(struct user_config *c, const struct opts *o, struct error *err)
{
	SlirpConfig *s = &c->slirp;

	if (!s->in6_enabled && (opts_has(o, "ipv6-net") || opts_has(o, "ipv6-prefix") ||
				opts_has(o, "ipv6-host") || opts_has(o, "ipv6-dns")))
		return err_set(err, -EINVAL, "IPv6 disabled but prefix/host6/dns6 provided");
	if (parse_prefix(c, o, err) < 0)
		return err->code;
	s->vhost6 = s->vnameserver6 = s->vprefix_addr6;
	s->vhost6.s6_addr[15] |= 2;
	s->vnameserver6.s6_addr[15] |= 3;
	if (parse_addr6(o, "ipv6-host", &s->vhost6, "host", err) < 0)
		return err->code;
	if (!same_prefix(&s->vhost6, &s->vprefix_addr6, s->vprefix_len))
		return err_set(err, -EINVAL, "IPv6 Host doesn't belong to network");
	return parse_addr6(o, "ipv6-dns", &s->vnameserver6, "DNS", err);
}

/* --- the rest --------------------------------------------------------------------------- */

static void collect_search(struct user_config *c, const struct opts *o)
{
	unsigned n = 0;

	c->search = xnew_n(const char *, o->n + 1);
	for (unsigned i = 0; i < o->n; i++)
		if (!strcmp(o->v[i].name, "dnssearch"))
			c->search[n++] = o->v[i].value;
	c->slirp.vdnssearch = n ? c->search : NULL;
}

static int get_bool(const struct opts *o, const char *key, bool *to, struct error *err)
{
	const char *text = opts_get(o, key);

	if (text && parse_bool(text, to) < 0)
		return err_set(err, -EINVAL, "Parameter '%s' expects 'on' or 'off'", key);
	return 0;
}

/* Either one that is said to be on switches off the other that nobody mentions. */
static int choose_versions(struct user_config *c, const struct opts *o, struct error *err)
{
	bool v4 = true, v6 = true;

	if (get_bool(o, "ipv4", &v4, err) < 0 || get_bool(o, "ipv6", &v6, err) < 0)
		return err->code;
	if (opts_has(o, "ipv6") && !opts_has(o, "ipv4") && v6)
		v4 = false;
	if (opts_has(o, "ipv4") && !opts_has(o, "ipv6") && v4)
		v6 = false;
	if (!v4 && !v6)
		return err_set(err, -EINVAL, "IPv4 and IPv6 disabled");
	c->slirp.in_enabled = v4;
	c->slirp.in6_enabled = v6;
	return 0;
}

/* DHCP has a byte for how long they are. */
static int check_names(const struct opts *o, struct error *err)
{
	static const char *const keys[] = {"domainname", "hostname", "tftp-server-name"};

	for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
		const char *text = opts_get(o, keys[i]);

		if (text && strlen(text) > NAME_MOST)
			return err_set(err, -EINVAL, "'%s' parameter cannot exceed %u bytes",
				       keys[i], NAME_MOST);
	}
	if (opts_has(o, "domainname") && !*opts_get(o, "domainname"))
		return err_set(err, -EINVAL, "'domainname' parameter cannot be empty");
	if (opts_has(o, "smb") || opts_has(o, "smbserver"))
		return err_set(err, -ENOTSUP,
			       "%s= is not available: let the guest reach a file server of the "
			       "host's, or use tftp=",
			       opts_has(o, "smb") ? "smb" : "smbserver");
	return 0;
}

int user_config_parse(struct user_config *c, const struct opts *o, struct error *err)
{
	bool restricted = false;
	int ret;

	*c = (struct user_config){.slirp = {.version = 4}};
	ret = check_names(o, err);
	if (ret == 0)
		ret = choose_versions(c, o, err);
	if (ret == 0)
		ret = get_bool(o, "restrict", &restricted, err);
	if (ret == 0)
		ret = parse_ipv4(c, o, err);
	if (ret == 0)
		ret = parse_ipv6(c, o, err);
	if (ret < 0)
		return ret;
	c->slirp.restricted = restricted;
	c->slirp.vhostname = opts_get(o, "hostname");
	c->slirp.tftp_server_name = opts_get(o, "tftp-server-name");
	c->slirp.tftp_path = opts_get(o, "tftp");
	c->slirp.bootfile = opts_get(o, "bootfile");
	c->slirp.vdomainname = opts_get(o, "domainname");
	collect_search(c, o);
	return 0;
}

/* --- forwarding rules --------------------------------------------------------------------- */

bool user_parse_port(const char *text, bool zero_is_fine, u16 *port)
{
	char *end;
	unsigned long n;

	if (*text < '0' || *text > '9')
		return false;
	n = strtoul(text, &end, 10);
	*port = (u16)n;
	return !*end && n <= 65535 && (n || zero_is_fine);
}

char *user_cut(char **rest, char sep)
{
	char *field = *rest, *at = strchr(field, sep);

	if (!at)
		return NULL;
	*at = 0;
	*rest = at + 1;
	return field;
}

static const char *parse_rule(struct user_forward *f, char *rest, bool with_guest)
{
	char *protocol = user_cut(&rest, ':'), *host, *port, *guest;

	if (!protocol)
		return "No : separators";
	if (*protocol && strcmp(protocol, "tcp") && strcmp(protocol, "udp"))
		return "Bad protocol name";
	f->udp = !strcmp(protocol, "udp");
	host = user_cut(&rest, ':');
	if (!host)
		return "Missing : separator";
	if (*host && !inet_aton(host, &f->host))
		return "Bad host address";
	if (!with_guest)
		return user_parse_port(rest, true, &f->host_port) ? NULL : "Bad host port";
	port = strchr(rest, '-') ? user_cut(&rest, '-') : NULL;
	if (!port || !*port)
		return "Bad host port separator";
	if (!user_parse_port(port, true, &f->host_port))
		return "Bad host port";
	guest = user_cut(&rest, ':');
	if (!guest)
		return "Missing guest address";
	if (*guest && !inet_aton(guest, &f->guest))
		return "Bad guest address";
	return user_parse_port(rest, false, &f->guest_port) ? NULL : "Bad guest port";
}

int user_forward_parse(struct user_forward *f, const char *rule, bool with_guest, struct error *err)
{
	AUTO_FREE char *copy = xstrdup(rule);
	const char *why;

	*f = (struct user_forward){.host.s_addr = INADDR_ANY};
	why = parse_rule(f, copy, with_guest);
	if (why)
		return err_set(err, -EINVAL, "Invalid host forwarding rule '%s' (%s)", rule, why);
	return 0;
}
