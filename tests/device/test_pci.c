/* PCI configuration space, BARs, interrupt pins and MSI-X, driven by the ports of
 * the host bridge. */
#include "devices/i440fx.h"
#include "tests/lib/fake_machine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* A function with one BAR of each kind, and MSI-X. */
struct toy {
	struct pci_dev pci;
	u32 written; /* the last value, and where */
	u64 written_off;
	bool no_msix;
};

#define TOY_MEM 0
#define TOY_IO	1
#define TOY_64	2
#define TOY_MSX 4

static u64 toy_read(void *owner, u64 off, unsigned size)
{
	return 0x10 + off;
}

static void toy_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct toy *t = owner;

	lock_assert(&t->pci.dev.lock);
	t->written = (u32)value;
	t->written_off = off;
}

static const struct bus_ops toy_ops = {.read = toy_read, .write = toy_write};

static int toy_init(struct device *dev, struct error *err)
{
	static const struct pci_ids ids = {.vendor = 0x1234,
					   .device = 0x5678,
					   .subsystem_vendor = 0x1af4,
					   .subsystem = 1,
					   .class_code = 0xff0000,
					   .revision = 3,
					   .interrupt_pin = 1};
	struct toy *t = container_of(dev, struct toy, pci.dev);
	int ret = pci_dev_init(&t->pci, &ids, err);

	if (ret < 0)
		return ret;
	pci_add_bar(&t->pci, TOY_MEM, PCI_BAR_MEM32, 0x2000, &toy_ops, NULL);
	pci_add_bar(&t->pci, TOY_IO, PCI_BAR_IO, 0x40, &toy_ops, NULL);
	pci_add_bar(&t->pci, TOY_64, PCI_BAR_MEM64, 0x4000, &toy_ops, NULL);
	return t->no_msix ? 0 : pci_msix_init(&t->pci, TOY_MSX, 3, err);
}

static void toy_reset(struct device *dev)
{
	pci_dev_reset(&container_of(dev, struct toy, pci.dev)->pci);
}

static void toy_fini(struct device *dev)
{
	pci_dev_fini(&container_of(dev, struct toy, pci.dev)->pci);
}

static void toy_post_load(struct device *dev)
{
	pci_dev_post_load(&container_of(dev, struct toy, pci.dev)->pci);
}

static const struct state_field toy_state[] = {
	STATE_STRUCT(struct toy, pci, pci_dev_state),
	STATE_END,
};

static const struct prop toy_props[] = {
	PROP(struct toy, no_msix, "no-msix", PROP_KIND_BOOL, NULL, "leave MSI-X out"),
	PROP_END,
};

static const struct device_class toy_class = {
	.name = "toy",
	.size = sizeof(struct toy),
	.bus = DEVICE_ON_PCI,
	.props = toy_props,
	.init = toy_init,
	.reset = toy_reset,
	.fini = toy_fini,
	.state = toy_state,
	.post_load = toy_post_load,
};

struct bench {
	struct fake_machine fm;
	struct device *bridge;
	struct toy *toy;
	u8 at;
};

static int setup(void **state)
{
	struct bench *b = xnew(struct bench);

	fake_machine_init(&b->fm, MiB);
	b->bridge = fake_device(&b->fm, &i440fx_class, NULL, NULL);
	b->toy = (struct toy *)fake_device(&b->fm, &toy_class, b->bridge, NULL);
	b->at = b->toy->pci.devfn;
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	fake_machine_fini(&b->fm);
	free(b);
	return 0;
}

static void host_bridge_is_at_0_and_devices_start_at_slot_3(void **state)
{
	struct bench *b = *state;

	assert_int_equal(pci_read(&b->fm, 0, 0, 4), 0x12378086);
	assert_int_equal(pci_read(&b->fm, 0, 0x2c, 4), 0x11001af4);
	assert_int_equal(b->at, DEVFN(3, 0));
	assert_int_equal(pci_read(&b->fm, b->at, 0, 4), 0x56781234);
	assert_int_equal(pci_read(&b->fm, b->at, 8, 4), 0xff000003);
	assert_int_equal(pci_read(&b->fm, DEVFN(4, 0), 0, 4), 0xffffffff);
}

static void a_disabled_address_selects_nothing(void **state)
{
	struct bench *b = *state;

	outl(&b->fm, 0xcf8, 0);
	assert_int_equal(inl(&b->fm, 0xcfc), 0xffffffff);
	outl(&b->fm, 0xcf8, 0x80010000); /* bus 1 */
	assert_int_equal(inl(&b->fm, 0xcfc), 0xffffffff);
	outl(&b->fm, 0xcf8, 0x80000000);
	assert_int_equal(inw(&b->fm, 0xcfe), 0x1237);
	assert_int_equal(inb(&b->fm, 0xcfd), 0x80);
}

static void a_taken_or_impossible_place_is_refused(void **state)
{
	struct bench *b = *state;
	struct prop_value addr = {.name = "addr", .text = "3"};
	struct device_args args = {.parent = b->bridge, .values = &addr, .n_values = 1};
	struct device *dev;
	struct error err;

	assert_int_equal(device_new(&dev, &b->fm.m, &toy_class, &args, &err), -EBUSY);
	assert_string_equal(err.text, "toy.1: PCI address 03.0 is taken by 'toy'");
	addr.text = "3.1";
	assert_int_equal(device_new(&dev, &b->fm.m, &toy_class, &args, &err), -EBUSY);
	addr.text = "20";
	assert_int_equal(device_new(&dev, &b->fm.m, &toy_class, &args, &err), -EINVAL);
	addr.text = "1f.0";
	assert_int_equal(device_new(&dev, &b->fm.m, &toy_class, &args, &err), 0);
	assert_int_equal(((struct pci_dev *)dev)->devfn, DEVFN(0x1f, 0));
}

static void bars_tell_their_size_and_decode_when_enabled(void **state)
{
	struct bench *b = *state;

	pci_write(&b->fm, b->at, 0x10, 4, 0xffffffff);
	assert_int_equal(pci_read(&b->fm, b->at, 0x10, 4), 0xffffe000);
	pci_write(&b->fm, b->at, 0x14, 4, 0xffffffff);
	assert_int_equal(pci_read(&b->fm, b->at, 0x14, 4), 0xffffffc1);
	pci_write(&b->fm, b->at, 0x10, 4, 0xe0000000);
	pci_write(&b->fm, b->at, 0x14, 4, 0xc000);
	assert_int_equal(mmio_read(&b->fm, 0xe0000004, 4), 0xffffffff);
	pci_write(&b->fm, b->at, 0x04, 2, 3);
	assert_int_equal(mmio_read(&b->fm, 0xe0000004, 4), 0x14);
	assert_int_equal(inl(&b->fm, 0xc008), 0x18);
	outl(&b->fm, 0xc03c, 0x1234);
	assert_int_equal(b->toy->written, 0x1234);
	assert_int_equal(b->toy->written_off, 0x3c);
	pci_write(&b->fm, b->at, 0x04, 2, 2);
	assert_int_equal(inl(&b->fm, 0xc008), 0xffffffff);
}

static void a_64_bit_bar_moves_above_4_gib(void **state)
{
	struct bench *b = *state;

	pci_write(&b->fm, b->at, 0x04, 2, 2);
	pci_write(&b->fm, b->at, 0x18, 4, 0xffffffff);
	pci_write(&b->fm, b->at, 0x1c, 4, 0xffffffff);
	assert_int_equal(pci_read(&b->fm, b->at, 0x18, 4), 0xffffc00c);
	assert_int_equal(pci_read(&b->fm, b->at, 0x1c, 4), 0xffffffff);
	pci_write(&b->fm, b->at, 0x18, 4, 0x8000);
	pci_write(&b->fm, b->at, 0x1c, 4, 1);
	assert_int_equal(mmio_read(&b->fm, 0x100008000, 4), 0x10);
}

static void one_bar_may_cover_another_for_a_while(void **state)
{
	struct bench *b = *state;
	struct toy *second = (struct toy *)fake_device(&b->fm, &toy_class, b->bridge, NULL);

	pci_write(&b->fm, b->at, 0x04, 2, 3);
	pci_write(&b->fm, second->pci.devfn, 0x04, 2, 3);
	pci_write(&b->fm, b->at, 0x14, 4, 0xc000);
	pci_write(&b->fm, second->pci.devfn, 0x14, 4, 0xc000);
	outl(&b->fm, 0xc000, 7);
	assert_int_equal(b->toy->written, 7);
	pci_write(&b->fm, b->at, 0x14, 4, 0xd000);
	outl(&b->fm, 0xc000, 8);
	assert_int_equal(second->written, 8);
}

static void interrupt_pin_goes_where_pirq_routing_says(void **state)
{
	struct bench *b = *state;
	const u32 routes[4] = {10, 11, 5, 9}, none[4] = {IRQ_NONE, IRQ_NONE, IRQ_NONE, IRQ_NONE};

	pci_set_intx(&b->toy->pci, true);
	pci_bus_set_routing(pci_bus_of(b->bridge), routes);
	assert_true(b->fm.gsi[5]); /* slot 3, INTA: PIRQC */
	assert_int_equal(pci_read(&b->fm, b->at, 0x06, 2) & 8, 8);
	pci_write(&b->fm, b->at, 0x04, 2, 0x400);
	assert_false(b->fm.gsi[5]);
	pci_write(&b->fm, b->at, 0x04, 2, 0);
	assert_true(b->fm.gsi[5]);
	pci_bus_set_routing(pci_bus_of(b->bridge), none);
	assert_false(b->fm.gsi[5]);
	pci_set_intx(&b->toy->pci, false);
	pci_bus_set_routing(pci_bus_of(b->bridge), routes);
	assert_false(b->fm.gsi[5]);
}

static u32 msix_control(struct bench *b)
{
	return b->toy->pci.config[0x34] + 2u;
}

static void place_msix(struct bench *b)
{
	pci_write(&b->fm, b->at, 0x20, 4, 0xe1000000);
	pci_write(&b->fm, b->at, 0x04, 2, 6);
	mmio_write(&b->fm, 0xe1000010, 4, 0xfee01000); /* vector 1 */
	mmio_write(&b->fm, 0xe1000018, 4, 0x4041);
}

static void msix_vectors_wait_while_masked(void **state)
{
	struct bench *b = *state;

	place_msix(b);
	pci_msix_notify(&b->toy->pci, 1);
	assert_int_equal(b->fm.n_msis, 0); /* not enabled: lost */
	pci_write(&b->fm, b->at, (u8)msix_control(b), 2, 0x8000);
	assert_true(pci_msix_enabled(&b->toy->pci));
	pci_msix_notify(&b->toy->pci, 1);
	assert_int_equal(b->fm.n_msis, 0);
	assert_int_equal(mmio_read(&b->fm, 0xe1000800, 4), 2);
	mmio_write(&b->fm, 0xe100001c, 4, 0);
	assert_int_equal(b->fm.n_msis, 1);
	assert_int_equal(b->fm.msis[0].addr, 0xfee01000);
	assert_int_equal(b->fm.msis[0].data, 0x4041);
	assert_int_equal(mmio_read(&b->fm, 0xe1000800, 4), 0);
}

static void masking_the_function_holds_all_vectors_back(void **state)
{
	struct bench *b = *state;

	place_msix(b);
	mmio_write(&b->fm, 0xe100001c, 4, 0);
	pci_write(&b->fm, b->at, (u8)msix_control(b), 2, 0xc000);
	pci_msix_notify(&b->toy->pci, 1);
	assert_int_equal(b->fm.n_msis, 0);
	pci_write(&b->fm, b->at, (u8)msix_control(b), 2, 0x8000);
	assert_int_equal(b->fm.n_msis, 1);
}

static void reset_unmaps_and_masks(void **state)
{
	struct bench *b = *state;

	place_msix(b);
	mmio_write(&b->fm, 0xe100001c, 4, 0);
	pci_write(&b->fm, b->at, (u8)msix_control(b), 2, 0x8000);
	device_reset(&b->toy->pci.dev);
	assert_false(pci_msix_enabled(&b->toy->pci));
	assert_int_equal(pci_read(&b->fm, b->at, 0x20, 4), 0);
	assert_int_equal(mmio_read(&b->fm, 0xe1000018, 4), 0xffffffff);
	assert_int_equal(pci_read(&b->fm, b->at, 0x04, 2), 0);
}

static void loading_maps_what_was_mapped(void **state)
{
	struct bench *b = *state;
	struct state_buf saved;
	struct error err;

	place_msix(b);
	pci_write(&b->fm, b->at, (u8)msix_control(b), 2, 0x8000);
	pci_msix_notify(&b->toy->pci, 1);
	fake_save(&b->toy->pci.dev, &saved);
	device_reset(&b->toy->pci.dev);
	assert_int_equal(device_load(&b->toy->pci.dev, &saved, &err), 0);
	assert_int_equal(mmio_read(&b->fm, 0xe1000018, 4), 0x4041);
	mmio_write(&b->fm, 0xe100001c, 4, 0);
	assert_int_equal(b->fm.n_msis, 1);
	state_buf_fini(&saved);
}

#define PCI_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PCI_TEST(host_bridge_is_at_0_and_devices_start_at_slot_3),
		PCI_TEST(a_disabled_address_selects_nothing),
		PCI_TEST(a_taken_or_impossible_place_is_refused),
		PCI_TEST(bars_tell_their_size_and_decode_when_enabled),
		PCI_TEST(a_64_bit_bar_moves_above_4_gib),
		PCI_TEST(one_bar_may_cover_another_for_a_while),
		PCI_TEST(interrupt_pin_goes_where_pirq_routing_says),
		PCI_TEST(msix_vectors_wait_while_masked),
		PCI_TEST(masking_the_function_holds_all_vectors_back),
		PCI_TEST(reset_unmaps_and_masks),
		PCI_TEST(loading_maps_what_was_mapped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
