/* A driver of one virtio-blk device on a fake machine, for tests: finds it on PCI,
 * negotiates, owns one queue.  The disk is a temporary raw file, or a given blk. */
#ifndef TESTS_LIB_VIRTIO_GUEST_H
#define TESTS_LIB_VIRTIO_GUEST_H

#include "block/blk.h"
#include "tests/lib/fake_machine.h"
#include "tests/lib/vring_driver.h"

#define GUEST_RAM   (4 * MiB)
#define GUEST_RING  0x10000
#define GUEST_REQ   0x20000 /* headers and status bytes */
#define GUEST_DATA  0x40000
#define GUEST_TABLE 0x30000 /* indirect tables */
#define GUEST_GSI   11

#define GUEST_IO   0xc000
#define GUEST_MSIX 0xe0000000
#define GUEST_MEM  0xe1000000

/* Registers of the modern BAR and of the legacy one. */
enum { MEM_COMMON = 0, MEM_ISR = 0x1000, MEM_CONFIG = 0x2000, MEM_NOTIFY = 0x3000 };
enum { IO_STATUS = 18, IO_ISR = 19, IO_CONFIG = 20, IO_CONFIG_MSIX = 24 };

enum { BLK_F_FLUSH = 9, BLK_F_CONFIG_WCE = 11, BLK_F_DISCARD = 13, BLK_F_WRITE_ZEROES = 14 };
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };

struct virtio_guest {
	struct fake_machine fm;
	struct device *bridge, *dev;
	struct blk *blk;
	char path[64];
	u8 devfn;
	bool legacy, indirect;
	u64 features; /* negotiated */
	struct vring_driver ring;
	u16 next_slot;
};

/* Machine, disk of this size, device with "name=value" properties up to NULL. */
void guest_init(struct virtio_guest *g, u64 disk_bytes, ...) __attribute__((sentinel));
void guest_fini(struct virtio_guest *g);

struct guest_mode {
	bool legacy, msix, indirect;
	u64 features;	/* wanted, of those offered */
	u16 queue_size; /* 0: as offered */
};
/* Reset, negotiate, set up queue 0, go.  Vectors: 0 configuration, 1 queue. */
void guest_start(struct virtio_guest *g, const struct guest_mode *mode);

u8 guest_status(struct virtio_guest *g);
void guest_set_status(struct virtio_guest *g, u8 status);
u8 guest_take_isr(struct virtio_guest *g);
u32 guest_config(struct virtio_guest *g, u32 off, unsigned size);
void guest_kick(struct virtio_guest *g);

/* Put a request into the ring: header, data (written by the device if `in`), status.
 * Returns its slot. */
u16 guest_submit(struct virtio_guest *g, u32 type, u64 sector, u32 bytes, bool in);
/* Wait for one used entry: its slot, or -1 after five seconds. */
int guest_wait(struct virtio_guest *g);
u8 guest_result(struct virtio_guest *g, u16 slot);
u64 guest_data(u16 slot); /* address of its data, 64 KiB each */
/* Submit, kick, wait: the status byte. */
u8 guest_request(struct virtio_guest *g, u32 type, u64 sector, u32 bytes, bool in);
/* Return when the drive's thread has finished its turn. */
void guest_settle(struct virtio_guest *g);
/* Interrupts so far: MSI messages with this data. */
unsigned guest_msis(struct virtio_guest *g, u32 data);

#endif
