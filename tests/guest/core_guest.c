/* See core_guest.h. */
#include "tests/guest/core_guest.h"

/* --- the test device ---------------------------------------------------------- */

static u64 port_read(void *owner, u64 off, unsigned size)
{
	struct test_machine *t = owner;

	lock_assert(&t->lock);
	return off == PORT_SEQ - PORT_TEXT ? t->seq++ : 0;
}

static void port_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct test_machine *t = owner;
	size_t len = strlen(t->text);

	lock_assert(&t->lock);
	switch (off + PORT_TEXT) {
	case PORT_TEXT:
		if (len + 1 < sizeof(t->text))
			t->text[len] = (char)value;
		t->letters++;
		break;
	case PORT_DONE:
		t->done++;
		t->done_value = (u32)value;
		break;
	case PORT_SEQ: t->seq_errors += (u32)value != t->seq - 1; break;
	}
	cond_broadcast(&t->changed);
}

static u64 mmio_read(void *owner, u64 off, unsigned size)
{
	return 0x1122334455667788 >> (off * 8);
}

static void mmio_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct test_machine *t = owner;
	size_t len = strlen(t->text);

	t->written++;
	t->widths += size;
	snprintf(t->text + len, sizeof(t->text) - len, "%llx:%llx ", (unsigned long long)off,
		 (unsigned long long)value);
}

static const struct bus_ops port_ops = {port_read, port_write, 1, 4};
static const struct bus_ops mmio_ops = {mmio_read, mmio_write, 1, 8};

/* --- the machine -------------------------------------------------------------- */

static void request(struct machine *m, enum machine_request what, int code)
{
	struct test_machine *t = container_of(m, struct test_machine, m);

	LOCK_SCOPE(&t->lock);
	t->requests[what]++;
	cond_broadcast(&t->changed);
}

static const struct machine_ops machine_ops = {request};

static void on_triple_fault(struct machine *m, struct vcpu *vcpu)
{
	struct test_machine *t = container_of(m, struct test_machine, m);

	LOCK_SCOPE(&t->lock);
	t->triple_faults++;
	cond_broadcast(&t->changed);
}

static void on_failure(struct machine *m, struct vcpu *vcpu, const char *text)
{
	struct test_machine *t = container_of(m, struct test_machine, m);

	LOCK_SCOPE(&t->lock);
	t->failures++;
	cond_broadcast(&t->changed);
}

static const struct vcpu_ops vcpu_ops = {on_triple_fault, on_failure};

static void make_memory(struct test_machine *t, const u8 *code, const u8 *end)
{
	static const u8 reset_vector[] = {0xea, 0x00, 0x10, 0x00, 0x00}; /* ljmp 0:0x1000 */
	struct mem_place ram = {"ram", 0, 64 * KiB, MEM_RAM};
	struct mem_place rom = {"rom", 0xffff0000, 64 * KiB, MEM_ROM};
	struct error err = {0};

	assert_int_equal(mem_new(&t->m.mem, &kvm_mem_ops, t->kvm, &err), 0);
	assert_int_equal(mem_add(t->m.mem, &t->ram, &ram, &err), 0);
	assert_int_equal(mem_add(t->m.mem, &t->rom, &rom, &err), 0);
	assert_int_equal(mem_rom_write(t->m.mem, 0xfffffff0, reset_vector, 5), 0);
	assert_int_equal(mem_write(t->m.mem, GUEST_CODE, code, (u64)(end - code)), 0);
}

static void make_buses(struct test_machine *t)
{
	struct bus_place ports = {"test ports", PORT_TEXT, 8, 0};
	struct bus_place mmio = {"test mmio", PORT_MMIO, 0x1000, 0};
	struct bus_region *r;

	bus_new(&t->m.pio, "pio", 0x10000);
	bus_new(&t->m.mmio, "mmio", UINT64_MAX);
	bus_set_doorbell_ops(t->m.pio, &kvm_pio_doorbell_ops, t->kvm);
	bus_set_doorbell_ops(t->m.mmio, &kvm_mmio_doorbell_ops, t->kvm);
	assert_int_equal(bus_map(t->m.pio, &r, &ports, &port_ops, t, &t->lock), 0);
	assert_int_equal(bus_map(t->m.mmio, &r, &mmio, &mmio_ops, t, &t->lock), 0);
}

struct test_machine *tm_start(const u8 *code, const u8 *end, u32 cpus)
{
	struct cpu_options opt = {
		.model = "host", .cpus = cpus, .sockets = 1, .cores = cpus, .threads = 1};
	struct test_machine *t = xnew(struct test_machine);
	struct error err = {0};

	mutex_init(&t->lock);
	cond_init(&t->changed);
	if (kvm_new(&t->kvm, &err) < 0)
		fail_msg("%s", err.text);
	t->m.ops = &machine_ops;
	t->m.has_kvm = true;
	t->m.cpus = cpus;
	make_memory(t, code, end);
	make_buses(t);
	irq_new(&t->m.irq, &kvm_irq_ops, t->kvm);
	if (vcpus_new(&t->vcpus, t->kvm, &t->m, &opt, &vcpu_ops, &err) < 0)
		fail_msg("%s", err.text);
	vcpus_resume(t->vcpus);
	return t;
}

void tm_stop(struct test_machine *t)
{
	vcpus_free(t->vcpus);
	assert_int_equal(t->failures, 0);
	bus_free(t->m.pio);
	bus_free(t->m.mmio);
	irq_free(t->m.irq);
	mem_free(t->m.mem);
	kvm_free(t->kvm);
	cond_fini(&t->changed);
	mutex_fini(&t->lock);
	free(t);
}

void tm_wait_for(struct test_machine *t, const u32 *what, u32 least)
{
	u64 deadline = now_ns() + 30 * (u64)NS_PER_SEC;
	bool in_time = true, late;

	mutex_lock(&t->lock);
	while (*what < least && !t->failures && in_time)
		in_time = cond_wait_until(&t->changed, &t->lock, deadline);
	late = *what < least;
	mutex_unlock(&t->lock);
	if (late)
		fail_msg("%s; the guest said '%s'", in_time ? "a vCPU failed" : "no answer in time",
			 t->text);
}

u32 tm_wait(struct test_machine *t)
{
	tm_wait_for(t, &t->done, ++t->expected);
	LOCK_SCOPE(&t->lock);
	return t->done_value;
}

void tm_wait_text(struct test_machine *t)
{
	tm_wait_for(t, &t->letters, 1);
}

u32 tm_seq(struct test_machine *t)
{
	LOCK_SCOPE(&t->lock);
	return t->seq;
}
