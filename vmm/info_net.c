/* What the monitor may do with networks: `info network`, links, forwarded ports, and
 * backends that come and go; see control.h. */
#include "devices/net/backends.h"
#include "devices/net/dump.h"
#include "devices/net/net.h"
#include "devices/net/user.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdio.h>

/* --- info ------------------------------------------------------------------------------ */

static void print_line(void *arg, const char *text)
{
	print_to(arg, "%s", text);
}

static void print_end(struct printer *p, const struct net_end *end)
{
	print_to(p, "%s: index=0,type=%s,%s\n", end->name, end->ops->type, end->info);
	if (!list_empty(&end->dumps))
		print_to(p, "filters:\n");
	net_dump_print(end, print_line, p);
}

static void print_port(struct printer *p, const struct net_end *port)
{
	print_to(p, " \\ %s", port->name);
	if (port->peer) {
		print_to(p, ": ");
		print_end(p, port->peer);
	} else {
		print_to(p, "\n");
	}
}

static void print_hub(struct vm *vm, struct printer *p, int hub)
{
	struct list *ends = net_ends(vm->machine.net);

	print_to(p, "hub %d\n", hub);
	for (struct list *pos = ends->prev; pos != ends; pos = pos->prev) {
		struct net_end *end = list_entry(pos, struct net_end, link);

		if (net_hub_of(end) == hub)
			print_port(p, end);
	}
}

/* Is this the first port of its hub in the list? */
static bool is_first_port(struct vm *vm, const struct net_end *port)
{
	list_for_each (pos, net_ends(vm->machine.net)) {
		const struct net_end *end = list_entry(pos, struct net_end, link);

		if (net_hub_of(end) == net_hub_of(port))
			return end == port;
	}
	return false;
}

static void print_pair(struct printer *p, const struct net_end *end)
{
	if (net_hub_of(end) >= 0 || (end->peer && net_hub_of(end->peer) >= 0))
		return;
	if (!end->peer || end->is_nic)
		print_end(p, end);
	if (end->peer && end->is_nic) {
		print_to(p, " \\ ");
		print_end(p, end->peer);
	}
}

void vm_info_network(struct vm *vm, struct printer *p)
{
	list_for_each (pos, net_ends(vm->machine.net)) {
		const struct net_end *end = list_entry(pos, struct net_end, link);

		if (net_hub_of(end) >= 0 && is_first_port(vm, end))
			print_hub(vm, p, net_hub_of(end));
	}
	list_for_each (pos, net_ends(vm->machine.net))
		print_pair(p, list_entry(pos, struct net_end, link));
}

void vm_info_usernet(struct vm *vm, struct printer *p)
{
	list_for_each (pos, net_ends(vm->machine.net)) {
		struct net_end *end = list_entry(pos, struct net_end, link);

		if (net_is_user(end))
			user_net_info(end, p);
	}
}

/* --- links ------------------------------------------------------------------------------ */

int vm_set_link(struct vm *vm, const char *name, bool up, struct error *err)
{
	struct net_end *end = net_find(vm->machine.net, name);

	if (!end || net_hub_of(end) >= 0)
		return err_set(err, -ENOENT, "Device '%s' not found", name);
	net_set_link(end, up);
	return 0;
}

/* --- forwarded ports --------------------------------------------------------------------- */

/* The user network of this name, or without a name the one that was made last. */
static struct net_end *find_user(struct vm *vm, const char *name, struct printer *p)
{
	struct net_end *found = NULL;

	list_for_each (pos, net_ends(vm->machine.net)) {
		struct net_end *end = list_entry(pos, struct net_end, link);

		if (net_is_user(end) && (!name || !strcmp(end->name, name)))
			found = end;
	}
	if (!found && name)
		print_to(p, "unrecognized netdev id '%s'\n", name);
	else if (!found)
		print_to(p, "user mode network stack not in use\n");
	return found;
}

void vm_hostfwd_add(struct vm *vm, const char *netdev, const char *rule, struct printer *p)
{
	struct net_end *end = find_user(vm, netdev, p);
	struct error err;

	if (end && user_net_forward(end, rule, &err) < 0)
		print_to(p, "%s\n", err.text);
}

void vm_hostfwd_remove(struct vm *vm, const char *netdev, const char *rule, struct printer *p)
{
	struct net_end *end = find_user(vm, netdev, p);
	struct error err;
	int ret;

	if (!end)
		return;
	ret = user_net_unforward(end, rule, &err);
	if (ret == 0 || ret == -ENOENT)
		print_to(p, "host forwarding rule for %s %s\n", rule,
			 ret ? "not found" : "removed");
	else
		print_to(p, "invalid format\n");
}

/* --- backends that come and go -------------------------------------------------------------- */

int vm_netdev_add(struct vm *vm, const char *text, struct error *err)
{
	struct opts opts;
	const char *id, *type;
	const struct net_backend *b;
	struct net_end *end;
	int ret = opts_parse(&opts, text, "type", err);

	if (ret < 0)
		return ret;
	id = opts_get(&opts, "id");
	type = opts_get(&opts, "type");
	b = type ? net_backend_find(type) : NULL;
	if (!type)
		ret = err_set(err, -EINVAL, "Parameter 'type' is missing");
	else if (!id)
		ret = err_set(err, -EINVAL, "Parameter 'id' is missing");
	else if (!b)
		ret = err_set(err, -EINVAL, "Parameter 'type' does not accept value '%s'", type);
	else if (!is_identifier(id))
		ret = err_set(err, -EINVAL, "Parameter 'id' expects an identifier");
	else if (net_find(vm->machine.net, id))
		ret = err_set(err, -EEXIST, "Duplicate ID '%s' for netdev", id);
	else
		ret = b->open(&end, vm->machine.net, id, &opts, err);
	opts_fini(&opts);
	return ret;
}

int vm_netdev_del(struct vm *vm, const char *id, struct error *err)
{
	struct net_end *end = net_find(vm->machine.net, id);

	if (!end || end->is_nic)
		return err_set(err, -ENOENT, "Device '%s' not found", id);
	if (*id == '#' || !end->ops->free || net_hub_of(end) >= 0)
		return err_set(err, -EINVAL, "Device '%s' is not a netdev", id);
	end->ops->free(end);
	return 0;
}
