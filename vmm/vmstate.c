/* The machine's state but for its memory; see vmstate.h.
 *
 * Order, of saving and of applying: the machine's clock, devices in order of
 * creation (they set their interrupt lines), networks, interrupt controllers and timer,
 * vCPUs with their local APICs. */
#include "vmm/vmstate.h"

#include "devices/device.h"
#include "devices/net/net.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdio.h>

/* What belongs to no device. */
struct board_state {
	u64 clock_ns;
	bool a20;
};

static const struct state_field board_table[] = {STATE(struct board_state, clock_ns),
						 STATE(struct board_state, a20), STATE_END};

struct vmstate {
	struct board_state board;
	struct kvm_image *kvm;
	u32 n_cpus, n_devices;
	struct vcpu_image **cpus;
	struct net_image *net;
	void **devices; /* copies, in order of creation */
};

/* --- saving ------------------------------------------------------------------- */

int vmstate_save(struct vm *vm, struct state_buf *out, struct error *err)
{
	struct machine *m = &vm->machine;
	struct board_state board = {.clock_ns = clock_now(m->clock),
				    .a20 = __atomic_load_n(&m->a20, __ATOMIC_RELAXED)};
	int ret;

	state_save(out, "machine", board_table, &board);
	list_for_each (pos, &m->devices)
		device_save(list_entry(pos, struct device, link), out);
	net_save(m->net, out);
	ret = kvm_save(vm->kvm, out, err);
	for (u32 i = 0; ret == 0 && i < vcpus_count(vm->vcpus); i++)
		ret = vcpu_save(vcpus_get(vm->vcpus, i), out, err);
	return ret;
}

/* --- loading ------------------------------------------------------------------ */

void vmstate_free(struct vmstate *state)
{
	if (!state)
		return;
	for (u32 i = 0; i < state->n_devices; i++)
		free(state->devices[i]);
	for (u32 i = 0; i < state->n_cpus; i++)
		free(state->cpus[i]);
	net_image_free(state->net);
	free(state->devices);
	free(state->cpus);
	free(state->kvm);
	free(state);
}

static int decode_devices(struct vm *vm, struct state_buf *in, struct vmstate *s, struct error *err)
{
	u32 n = 0;

	list_for_each (pos, &vm->machine.devices)
		n++;
	s->devices = xnew_n(void *, n);
	list_for_each (pos, &vm->machine.devices) {
		struct device *dev = list_entry(pos, struct device, link);
		int ret = device_load_copy(dev, in, &s->devices[s->n_devices], err);

		if (ret < 0)
			return ret;
		s->n_devices++;
	}
	return 0;
}

static int decode_cpus(struct vm *vm, struct state_buf *in, struct vmstate *s, struct error *err)
{
	u32 n = vcpus_count(vm->vcpus);

	s->cpus = xnew_n(struct vcpu_image *, n);
	for (u32 i = 0; i < n; i++) {
		int ret = vcpu_load_image(vcpus_get(vm->vcpus, i), in, &s->cpus[i], err);

		if (ret < 0)
			return ret;
		s->n_cpus++;
	}
	return 0;
}

int vmstate_decode(struct vm *vm, struct state_buf *in, struct vmstate **out, struct error *err)
{
	struct vmstate *s = xnew(struct vmstate);
	int ret = state_load(in, "machine", board_table, &s->board, err);

	if (ret == 0)
		ret = decode_devices(vm, in, s, err);
	if (ret == 0)
		ret = net_load_image(vm->machine.net, in, &s->net, err);
	if (ret == 0)
		ret = kvm_load_image(in, &s->kvm, err);
	if (ret == 0)
		ret = decode_cpus(vm, in, s, err);
	if (ret == 0 && in->at != in->bytes)
		ret = err_set(err, -EINVAL, "%zu bytes of state are left over", in->bytes - in->at);
	if (ret < 0) {
		vmstate_free(s);
		return ret;
	}
	*out = s;
	return 0;
}

int vmstate_apply(struct vm *vm, struct vmstate *s, struct error *err)
{
	struct machine *m = &vm->machine;
	u32 i = 0;
	int ret;

	assert(s->n_cpus == vcpus_count(vm->vcpus));
	clock_set(m->clock, s->board.clock_ns);
	__atomic_store_n(&m->a20, s->board.a20, __ATOMIC_RELAXED);
	list_for_each (pos, &m->devices) {
		device_load_apply(list_entry(pos, struct device, link), s->devices[i]);
		s->devices[i++] = NULL; /* taken */
	}
	ret = net_load(m->net, s->net, err);
	if (ret == 0)
		ret = kvm_load(vm->kvm, s->kvm, err);
	for (i = 0; ret == 0 && i < s->n_cpus; i++)
		ret = vcpu_load(vcpus_get(vm->vcpus, i), s->cpus[i], err);
	return ret;
}

/* --- manifest ----------------------------------------------------------------- */

static void describe_board(struct vm *vm, struct printer *p)
{
	const struct config *c = vm->config;
	struct mem_region_info regions[64];
	unsigned n = mem_regions(vm->machine.mem, regions, ARRAY_LEN(regions));
	const struct kvm_cpuid2 *cpuid = vcpus_cpuid(vm->vcpus);

	print_to(p, "machine pc\n");
	print_to(p, "cpus = %u (sockets %u, cores %u, threads %u)\n", vcpus_count(vm->vcpus),
		 c->sockets, c->cores, c->threads);
	for (unsigned i = 0; i < MIN(n, (unsigned)ARRAY_LEN(regions)); i++)
		if (!regions[i].alias)
			print_to(p, "memory %s: %llu bytes\n", regions[i].name,
				 (unsigned long long)regions[i].bytes);
	for (u32 i = 0; i < cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		print_to(p, "cpuid %08x.%x: %08x %08x %08x %08x\n", e->function, e->index, e->eax,
			 e->ebx, e->ecx, e->edx);
	}
}

/* The device tree, every line led by its device; but for streams, which may go
 * anywhere else. */
static void describe_devices(struct vm *vm, struct printer *p)
{
	struct text_printer tree;
	char *rest, *line, name[64] = "";

	text_printer_init(&tree);
	vm_info_qtree(vm, &tree.printer);
	rest = tree.text;
	while (rest && (line = strsep(&rest, "\n"))) {
		const char *id = strstr(line, ", id \"");

		line += strspn(line, " ");
		if (!strncmp(line, "dev: ", 5) && id) {
			snprintf(name, sizeof(name), "%.*s", (int)strcspn(id + 6, "\""), id + 6);
			print_to(p, "device %s: %.*s\n", name, (int)(id - line - 5), line + 5);
		} else if (*line && strncmp(line, "bus: ", 5) && strncmp(line, "type ", 5) &&
			   strncmp(line, "chardev ", 8)) {
			print_to(p, "device %s: %s\n", name, line);
		}
	}
	free(tree.text);
}

/* Those that have a state of their own. */
static void describe_nets(struct vm *vm, struct printer *p)
{
	list_for_each (pos, net_ends(vm->machine.net)) {
		const struct net_end *end = list_entry(pos, struct net_end, link);

		if (end->ops->save)
			print_to(p, "network %s: %s\n", end->name, end->ops->type);
	}
}

char *vmstate_manifest(struct vm *vm)
{
	struct text_printer text;

	text_printer_init(&text);
	describe_board(vm, &text.printer);
	describe_devices(vm, &text.printer);
	describe_nets(vm, &text.printer);
	return text.text;
}

static bool has_line(const char *text, const char *line, size_t bytes)
{
	while (*text) {
		size_t n = strcspn(text, "\n");

		if (n == bytes && !memcmp(text, line, n))
			return true;
		text += n + (text[n] == '\n');
	}
	return false;
}

static unsigned print_missing(const char *from, const char *in, const char *word, struct printer *p)
{
	unsigned count = 0;

	while (*from) {
		size_t n = strcspn(from, "\n");

		if (!has_line(in, from, n)) {
			print_to(p, "  %s: %.*s\n", word, (int)n, from);
			count++;
		}
		from += n + (from[n] == '\n');
	}
	return count;
}

unsigned vmstate_compare(const char *saved, const char *now, struct printer *p)
{
	unsigned count;

	if (!strcmp(saved, now)) /* as a rule; what follows takes a quarter of a millisecond */
		return 0;
	count = print_missing(saved, now, "saved", p);
	return count + print_missing(now, saved, "now", p);
}
