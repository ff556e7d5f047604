# cowvm: build, check, demo.  One Makefile for the whole tree; explicit lists of
# what belongs to which part.  Variants: make BUILD=release|debug|asan|tsan|fuzz.
# Outputs lie in build/$(BUILD)/; build/cowvm and build/cowimg are the release ones.

BUILD   ?= release
CC      ?= cc
PREFIX  ?= /usr/local
VERSION := 0.1

O := build/$(BUILD)

CSTD    := -std=gnu17
WARN    := -Wall -Wextra -Wshadow -Wvla -Wundef -Wstrict-prototypes -Wmissing-prototypes \
	   -Wimplicit-fallthrough -Wno-unused-parameter -Wframe-larger-than=16384
ifdef CI
WARN    += -Werror
endif
OPT_release := -O2 -g
OPT_debug   := -O0 -g3
OPT_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	       -fno-omit-frame-pointer
# gcc warns that fences are not modelled; rings of shared memory need them.
OPT_tsan    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer \
	       $(if $(filter clang,$(CC)),,-Wno-tsan)
OPT_fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-omit-frame-pointer
ifeq ($(BUILD),fuzz)
CC := clang
endif
OPT := $(OPT_$(BUILD))
ifeq ($(OPT),)
$(error unknown BUILD '$(BUILD)': release, debug, asan, tsan or fuzz)
endif

CPPFLAGS += -I. -I$(O)/gen -DCOWVM_VERSION='"$(VERSION)"'
CFLAGS   += $(CSTD) $(WARN) $(OPT) -pthread
LDFLAGS  += $(OPT) -pthread

# --- what belongs where -----------------------------------------------------

BASE := \
	base/base.o \
	base/chardev.o \
	base/chardev_open.o \
	base/crc32c.o \
	base/error.o \
	base/fiber.o \
	base/fiber_x86_64.o \
	base/io.o \
	base/io_cached.o \
	base/io_pool.o \
	base/io_threads.o \
	base/io_uring.o \
	base/log.o \
	base/loop.o \
	base/opts.o \
	base/pool.o \
	base/printer.o \
	base/sock.o \
	base/sys.o \
	base/thread.o

BLOCK := \
	block/aligned.o \
	block/blk.o \
	block/blk_lock.o \
	block/blk_medium.o \
	block/blk_open.o \
	block/blk_throttle.o \
	block/copy_on_read.o \
	block/create.o \
	block/crew.o \
	block/crypt_io.o \
	block/crypto/aes_legacy.o \
	block/crypto/af.o \
	block/crypto/cipher.o \
	block/crypto/kdf.o \
	block/crypto/key.o \
	block/crypto/lib.o \
	block/crypto/luks.o \
	block/crypto/luks_create.o \
	block/crypto/luks_slots.o \
	block/crypto/sectors.o \
	block/crypto/wrap.o \
	block/crypto/xts.o \
	block/dirty_map.o \
	block/file.o \
	block/file_copy.o \
	block/file_direct.o \
	block/file_lock.o \
	block/file_prealloc.o \
	block/file_protocol.o \
	block/filter_fault.o \
	block/filter_record.o \
	block/graph.o \
	block/group.o \
	block/image.o \
	block/image_open.o \
	block/image_writable.o \
	block/info/crypt.o \
	block/info/json.o \
	block/info/snapshots.o \
	block/info/text.o \
	block/job.o \
	block/job_commit.o \
	block/job_live.o \
	block/job_stream.o \
	block/luks.o \
	block/luks_amend.o \
	block/map_chain.o \
	block/map_cursor.o \
	block/names.o \
	block/null.o \
	block/overlay.o \
	block/nbd/client.o \
	block/nbd/lib.o \
	block/nbd/options.o \
	block/nbd/requests.o \
	block/nbd/server.o \
	block/qcow2/alloc.o \
	block/qcow2/amend.o \
	block/qcow2/batch.o \
	block/qcow2/bitmap_ops.o \
	block/qcow2/bitmap_session.o \
	block/qcow2/bitmap_set.o \
	block/qcow2/bitmap_store.o \
	block/qcow2/cache.o \
	block/qcow2/change.o \
	block/qcow2/check.o \
	block/qcow2/check_bitmaps.o \
	block/qcow2/check_count.o \
	block/qcow2/check_fix.o \
	block/qcow2/check_snapshots.o \
	block/qcow2/codec.o \
	block/qcow2/commit.o \
	block/qcow2/compress.o \
	block/qcow2/create.o \
	block/qcow2/create_options.o \
	block/qcow2/crypt.o \
	block/qcow2/crypt_create.o \
	block/qcow2/data_file.o \
	block/qcow2/descend.o \
	block/qcow2/discard.o \
	block/qcow2/downgrade.o \
	block/qcow2/grow.o \
	block/qcow2/header.o \
	block/qcow2/header_update.o \
	block/qcow2/inflate.o \
	block/qcow2/l2.o \
	block/qcow2/measure.o \
	block/qcow2/options.o \
	block/qcow2/overlap.o \
	block/qcow2/pack.o \
	block/qcow2/pivot.o \
	block/qcow2/pivot_count.o \
	block/qcow2/pivot_place.o \
	block/qcow2/pivot_write.o \
	block/qcow2/prealloc.o \
	block/qcow2/qcow2.o \
	block/qcow2/read.o \
	block/qcow2/refcount.o \
	block/qcow2/refcount_width.o \
	block/qcow2/resize.o \
	block/qcow2/slice.o \
	block/qcow2/snapshot.o \
	block/qcow2/snapshot_live.o \
	block/qcow2/snapshot_ops.o \
	block/qcow2/snapshot_tree.o \
	block/qcow2/sub_write.o \
	block/qcow2/subcluster.o \
	block/qcow2/vmstate_format.o \
	block/qcow2/vmstate_same.o \
	block/qcow2/vmstate_verify.o \
	block/qcow2/write.o \
	block/raw.o \
	block/same.o \
	block/secret.o \
	block/temporary.o \
	block/throttle.o \
	block/unlock.o

IMG := \
	block/img/amend.o \
	block/img/bench.o \
	block/img/bitmap.o \
	block/img/check.o \
	block/img/commit.o \
	block/img/compare.o \
	block/img/convert.o \
	block/img/convert_run.o \
	block/img/copy.o \
	block/img/copy_plan.o \
	block/img/create.o \
	block/img/dd.o \
	block/img/help.o \
	block/img/info.o \
	block/img/main.o \
	block/img/map.o \
	block/img/measure.o \
	block/img/open.o \
	block/img/options.o \
	block/img/passphrase.o \
	block/img/progress.o \
	block/img/rebase.o \
	block/img/resize.o \
	block/img/serve.o \
	block/img/snapshot.o \
	block/img/snapshot_extract.o \
	block/img/snapshot_tree.o \
	block/img/snapshot_verify.o

CORE := \
	vmm/core/bus.o \
	vmm/core/clock.o \
	vmm/core/cpu_models.o \
	vmm/core/cpuid.o \
	vmm/core/cpuid_flags.o \
	vmm/core/cpuid_hyperv.o \
	vmm/core/cpuid_model.o \
	vmm/core/cpuid_options.o \
	vmm/core/cpuid_topology.o \
	vmm/core/irq.o \
	vmm/core/kvm.o \
	vmm/core/kvm_irq.o \
	vmm/core/kvm_state.o \
	vmm/core/mem.o \
	vmm/core/mem_host.o \
	vmm/core/paging.o \
	vmm/core/state.o \
	vmm/core/uffd.o \
	vmm/core/vcpu.o \
	vmm/core/vcpu_regs.o \
	vmm/core/vcpu_state.o

DEVICES := \
	devices/debug.o \
	devices/device.o \
	devices/disk.o \
	devices/display/display.o \
	devices/display/picture.o \
	devices/display/surface.o \
	devices/display/vnc.o \
	devices/display/vnc_client.o \
	devices/display/vnc_events.o \
	devices/display/vnc_keys.o \
	devices/display/vnc_lib.o \
	devices/display/vnc_listen.o \
	devices/fwcfg.o \
	devices/i440fx.o \
	devices/ide/ata.o \
	devices/ide/ata_addr.o \
	devices/ide/ata_cmd.o \
	devices/ide/ata_identify.o \
	devices/ide/ata_io.o \
	devices/ide/ata_state.o \
	devices/ide/atapi.o \
	devices/ide/atapi_disc.o \
	devices/ide/bmdma.o \
	devices/ide/ide_drive.o \
	devices/ide/piix_ide.o \
	devices/input/input.o \
	devices/net/backends.o \
	devices/net/checksum.o \
	devices/net/dgram.o \
	devices/net/dump.o \
	devices/net/e1000.o \
	devices/net/e1000_phy.o \
	devices/net/e1000_rx.o \
	devices/net/e1000_tx.o \
	devices/net/hub.o \
	devices/net/net.o \
	devices/net/nic.o \
	devices/net/script.o \
	devices/net/socket.o \
	devices/net/state.o \
	devices/net/tap.o \
	devices/net/user.o \
	devices/net/user_config.o \
	devices/net/user_guestfwd.o \
	devices/pci.o \
	devices/pci_bar.o \
	devices/pci_bus.o \
	devices/pci_msix.o \
	devices/piix3.o \
	devices/piix4pm.o \
	devices/port92.o \
	devices/ps2.o \
	devices/ps2_keyboard.o \
	devices/ps2_mouse.o \
	devices/pvpanic.o \
	devices/registry.o \
	devices/rtc.o \
	devices/serial.o \
	devices/vga/vga.o \
	devices/vga/vga_dispi.o \
	devices/vga/vga_draw.o \
	devices/vga/vga_mem.o \
	devices/vga/vga_regs.o \
	devices/vga/vga_scan.o \
	devices/vga/vga_text.o \
	devices/vga/vga_view.o \
	devices/virtio/balloon.o \
	devices/virtio/blk.o \
	devices/virtio/input.o \
	devices/virtio/input_config.o \
	devices/virtio/net.o \
	devices/virtio/net_ctrl.o \
	devices/virtio/net_io.o \
	devices/virtio/pci.o \
	devices/virtio/queue.o \
	devices/virtio/regs.o \
	devices/virtio/rng.o \
	devices/virtio/serial.o \
	devices/virtio/serial_port.o \
	devices/virtio/served.o

FIRMWARE := \
	firmware/acpi.o \
	firmware/acpi_loader.o \
	firmware/aml.o \
	firmware/blob.o \
	firmware/bzimage.o \
	firmware/e820.o \
	firmware/linuxboot.o \
	firmware/multiboot.o \
	firmware/seabios.o \
	firmware/smbios.o

MONITOR := \
	monitor/block_jobs.o \
	monitor/commands.o \
	monitor/expr.o \
	monitor/hmp.o \
	monitor/medium.o \
	monitor/memory.o \
	monitor/monitor.o \
	monitor/net.o \
	monitor/readline.o \
	monitor/screen.o \
	monitor/sendkey.o \
	monitor/snapshot.o \
	monitor/unlock.o \
	monitor/wait.o

# The library, and the program's main file.
VMM := \
	vmm/block_jobs.o \
	vmm/blockdev.o \
	vmm/board.o \
	vmm/boot.o \
	vmm/boot_order.o \
	vmm/config.o \
	vmm/control.o \
	vmm/daemon.o \
	vmm/device_help.o \
	vmm/drives.o \
	vmm/info_apic.o \
	vmm/info_block.o \
	vmm/info_cpu.o \
	vmm/info_machine.o \
	vmm/info_net.o \
	vmm/info_paging.o \
	vmm/machine.o \
	vmm/medium.o \
	vmm/memory.o \
	vmm/nets.o \
	vmm/option_blockdev.o \
	vmm/option_char.o \
	vmm/option_display.o \
	vmm/option_drive.o \
	vmm/option_machine.o \
	vmm/option_net.o \
	vmm/option_object.o \
	vmm/option_run.o \
	vmm/option_smbios.o \
	vmm/options.o \
	vmm/readconfig.o \
	vmm/run.o \
	vmm/screen.o \
	vmm/snapshot/area.o \
	vmm/snapshot/copies.o \
	vmm/snapshot/delete.o \
	vmm/snapshot/load.o \
	vmm/snapshot/ram.o \
	vmm/snapshot/ram_load.o \
	vmm/snapshot/ram_save.o \
	vmm/snapshot/save.o \
	vmm/snapshot/set.o \
	vmm/snapshot/snapshot.o \
	vmm/streams.o \
	vmm/unlock.o \
	vmm/user_devices.o \
	vmm/vmstate.o
VMM_MAIN := vmm/main.o

# Unit and device test programs: tests/unit/NAME.c or tests/device/NAME.c, each
# linked with every library of ours (the linker takes what it needs).
UNIT_TESTS := \
	test_blk \
	test_bus \
	test_chain \
	test_chardev \
	test_clock \
	test_compress \
	test_cpuid \
	test_crypto \
	test_fiber \
	test_file \
	test_filter \
	test_image \
	test_io \
	test_irq \
	test_job \
	test_job_fault \
	test_linuxboot \
	test_loop \
	test_mem \
	test_monitor \
	test_net \
	test_options \
	test_paging \
	test_qcow2_amend \
	test_qcow2_bitmap \
	test_qcow2_datafile \
	test_qcow2_edges \
	test_qcow2_fault \
	test_qcow2_flow \
	test_qcow2_header \
	test_qcow2_hostile \
	test_qcow2_live \
	test_qcow2_model \
	test_qcow2_slice \
	test_qcow2_snapshot \
	test_ram_load \
	test_ram_save \
	test_state \
	test_throttle \
	test_virtq \
	test_vmstate_verify
DEVICE_TESTS := \
	test_ata \
	test_atapi \
	test_board \
	test_debug \
	test_e1000 \
	test_every_class \
	test_firmware \
	test_fwcfg \
	test_pci \
	test_piix \
	test_piix_ide \
	test_port92 \
	test_ps2 \
	test_rtc \
	test_serial \
	test_vga \
	test_vga_draw \
	test_virtio_balloon \
	test_virtio_blk \
	test_virtio_input \
	test_virtio_net \
	test_virtio_pci \
	test_virtio_rng \
	test_virtio_serial
# Replay of recorded runs as after a power cut: tests/crash/NAME.c.
CRASH_TESTS := \
	empty \
	jobs \
	luks \
	overlays \
	replay \
	serve \
	snapshots \
	steps \
	tool
# Coverage-guided fuzzing, with BUILD=fuzz: tests/fuzz/fuzz_NAME.c.
FUZZ_TARGETS := \
	header \
	luks \
	names \
	tables \
	vmstate
# What test programs share.
TEST_LIB := \
	tests/crash/record.o \
	tests/crash/scribe.o \
	tests/guest/core_guest.o \
	tests/lib/ata_rig.o \
	tests/lib/cuts.o \
	tests/lib/fake_machine.o \
	tests/lib/mem_chain.o \
	tests/lib/mem_image.o \
	tests/lib/net_rig.o \
	tests/lib/virtio_guest.o \
	tests/lib/virtio_rig.o
# Programs that whole-program tests run: tests/NAME.c.
TEST_TOOLS := \
	guest/core_kvm \
	guest/forgetful \
	image/blkio \
	image/scarce

LIBS_base    := -luring
LIBS_block   := $(shell pkg-config --libs jansson libdeflate libzstd zlib)
LIBS_monitor := -lreadline
LIBS_devices := -lslirp $(shell pkg-config --libs libpng)
LIBS_test    := -lcmocka $(shell pkg-config --libs libcrypto)

# --- rules ------------------------------------------------------------------

LIB_NAMES := vmm monitor firmware devices core block base
OBJS_base     := $(BASE:%=$(O)/%)
OBJS_block    := $(BLOCK:%=$(O)/%)
OBJS_core     := $(CORE:%=$(O)/%)
OBJS_devices  := $(DEVICES:%=$(O)/%)
OBJS_firmware := $(FIRMWARE:%=$(O)/%)
OBJS_monitor  := $(MONITOR:%=$(O)/%)
OBJS_vmm      := $(VMM:%=$(O)/%)
OBJS_img      := $(IMG:%=$(O)/%)
OBJS_test     := $(TEST_LIB:%=$(O)/%)
LIBS := $(LIB_NAMES:%=$(O)/lib%.a)
TEST_BINS := $(UNIT_TESTS:%=$(O)/tests/unit/%) $(DEVICE_TESTS:%=$(O)/tests/device/%)
CRASH_BINS := $(CRASH_TESTS:%=$(O)/tests/crash/%)
TOOL_BINS := $(TEST_TOOLS:%=$(O)/tests/%)
FUZZ_BINS := $(FUZZ_TARGETS:%=$(O)/tests/fuzz/fuzz_%)

# One short line for a file that is made; `make V=1` prints whole commands.
say = $(if $(V),,@printf '%-5s %s\n' $(1) $@;)

PROGRAMS := $(if $(VMM_MAIN),$(O)/cowvm) $(if $(IMG),$(O)/cowimg)

.PHONY: all
all: $(PROGRAMS)
ifeq ($(BUILD),release)
all: $(PROGRAMS:$(O)/%=build/%)
build/%: $(O)/%
	@ln -f $< $@
endif

$(O)/cowvm: $(VMM_MAIN:%=$(O)/%) $(LIBS)
	$(call say,LINK)$(CC) $(LDFLAGS) -o $@ $(VMM_MAIN:%=$(O)/%) \
		-Wl,--start-group $(LIBS) -Wl,--end-group \
		$(LIBS_monitor) $(LIBS_devices) $(LIBS_block) $(LIBS_base)
$(O)/cowimg: $(OBJS_img) $(O)/libblock.a $(O)/libbase.a
	$(call say,LINK)$(CC) $(LDFLAGS) -o $@ $(OBJS_img) \
		$(O)/libblock.a $(O)/libbase.a $(LIBS_block) $(LIBS_base)

define LIBRARY
$(O)/lib$(1).a: $$(OBJS_$(1))
	@mkdir -p $$(@D) && rm -f $$@
	$$(call say,AR)$(AR) rcs $$@ $$(OBJS_$(1))
endef
$(foreach lib,$(LIB_NAMES) test,$(eval $(call LIBRARY,$(lib))))

# The list of objects is an input too: a file that leaves a list leaves the library.
$(O)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<
$(O)/%.o: %.S Makefile
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# The option ROM of direct kernel boot, as a list of bytes for its C file.
$(O)/gen/linuxboot_rom.inc: firmware/linuxboot_rom.S Makefile
	@mkdir -p $(@D)
	$(call say,AS)$(AS) --32 -o $(@:.inc=.o) $<
	@$(LD) -m elf_i386 -Ttext 0 --oformat binary -o $(@:.inc=.bin) $(@:.inc=.o)
	@od -An -v -tx1 $(@:.inc=.bin) | sed 's/ \(..\)/0x\1,/g' >$@
$(O)/firmware/linuxboot.o: $(O)/gen/linuxboot_rom.inc

# ACPI machine language, as bytes for a C array.
$(O)/gen/firmware/dsdt.hex: firmware/dsdt.asl Makefile
	@mkdir -p $(@D)
	$(call say,IASL)iasl -p $(O)/gen/firmware/dsdt $< >$(O)/gen/firmware/dsdt.log || \
		{ cat $(O)/gen/firmware/dsdt.log; exit 1; }
	@od -An -v -tx1 $(O)/gen/firmware/dsdt.aml | sed 's/ \(..\)/0x\1,/g' >$@
$(O)/firmware/acpi.o: $(O)/gen/firmware/dsdt.hex

.PHONY: tests
tests: $(TEST_BINS) $(TOOL_BINS) $(CRASH_BINS) $(O)/tests/lib/faults.so
# For LD_PRELOAD into programs of any build: without sanitizers.
$(O)/tests/lib/faults.so: tests/lib/faults.c Makefile
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CSTD) $(WARN) -O1 -fPIC -shared -o $@ $<
$(TEST_BINS) $(TOOL_BINS) $(CRASH_BINS): $(O)/tests/%: $(O)/tests/%.o $(O)/libtest.a $(LIBS)
	$(call say,LINK)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(O)/libtest.a \
		-Wl,--start-group $(LIBS) -Wl,--end-group \
		$(LIBS_test) $(LIBS_monitor) $(LIBS_devices) $(LIBS_block) $(LIBS_base)
.SECONDARY: $(TEST_BINS:%=%.o)

$(O)/tests/bench/blkbench: $(O)/tests/bench/blkbench.o $(O)/libblock.a $(O)/libbase.a
	$(call say,LINK)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_block) $(LIBS_base)

# The whole program, but for marks of dirty memory that tests/guest/forgetful.c takes away.
$(O)/tests/guest/forgetful: $(VMM_MAIN:%=$(O)/%)
$(O)/tests/guest/forgetful: private LDFLAGS += -Wl,--wrap=mem_write \
	-Wl,--wrap=mem_mark_dirty -Wl,--wrap=mem_mark_dirty_iov

# The image tool in a test program, every host file that it opens in a test's hands.
TOOL_TESTS := luks serve steps tool
TOOL_TEST_OBJS := $(O)/tests/crash/cowimg_main.o $(O)/tests/crash/tool_rig.o \
	$(filter-out %/main.o,$(OBJS_img))
$(TOOL_TESTS:%=$(O)/tests/crash/%): $(TOOL_TEST_OBJS)
$(TOOL_TESTS:%=$(O)/tests/crash/%): private LDFLAGS += -Wl,--wrap=file_open_path
$(O)/tests/crash/cowimg_main.o: block/img/main.c Makefile
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) -Dmain=cowimg_main \
		$(CFLAGS) -Wno-missing-prototypes -MMD -MP -c -o $@ $<

# External snapshots in a test program, their files in memory.
$(O)/tests/crash/overlays: private LDFLAGS += -Wl,--wrap=create_host_file \
	-Wl,--wrap=file_open_path

# The image tool, every allocation of which a test may refuse.
$(O)/tests/image/scarce: $(O)/tests/crash/cowimg_main.o $(filter-out %/main.o,$(OBJS_img))
$(O)/tests/image/scarce: private LDFLAGS += -Wl,--wrap=try_alloc \
	-Wl,--wrap=try_alloc_aligned

# Test programs that take a fake drive instead of block/blk.o.
FAKE_BLK_TESTS := test_ata test_atapi test_piix_ide
$(FAKE_BLK_TESTS:%=$(O)/tests/device/%): $(O)/tests/lib/fake_blk.o

.PHONY: check-unit
check-unit: $(TEST_BINS)
	@set -e; for t in $(TEST_BINS); do echo "== $$t"; $$t; done

# The long form of the power-cut tests: more seeds, more reorderings.
.PHONY: check-crash
check-crash: $(CRASH_BINS)
	@set -e; export COWVM_CRASH_ROUNDS=$(or $(ROUNDS),8); \
		for t in $(CRASH_BINS); do echo "== $$t"; $$t; done

# Machines killed in the middle of snapshots, for longer than `make check` does it.
.PHONY: check-kill
check-kill: all
	COWVM_KILL_ROUNDS=$(or $(ROUNDS),100) COWVM_KILL_SEED=$(or $(SEED),$(shell date +%s)) \
		/usr/bin/python3 -m pytest -p no:cacheprovider -s tests/guest/test_kill.py

# Many snapshots in a row of a Debian kernel at work: a quarter of an hour for 50 (COUNT=).
.PHONY: check-snapshots
check-snapshots: all
	+$(MAKE) --no-print-directory build/demo/base.qcow2
	tests/nested -m 6144 -t 7200 -e COWVM_TEST_SLOW=3 -e COWVM_SNAPSHOTS=$(or $(COUNT),50) -- \
		/usr/bin/python3 -m pytest -p no:cacheprovider -v --tb=short \
		tests/guest/test_linux_snapshot_row.py

# libFuzzer's targets: each for so many seconds, on its corpus and what it finds.
.PHONY: fuzz fuzz-programs
ifeq ($(BUILD),fuzz)
fuzz-programs: $(FUZZ_BINS)
$(FUZZ_BINS): %: %.o $(O)/tests/fuzz/rig.o $(O)/tests/lib/mem_image.o \
		$(O)/libblock.a $(O)/libbase.a
	$(call say,LINK)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LIBS_block) $(LIBS_base)
.SECONDARY: $(FUZZ_BINS:%=%.o)
else
fuzz-programs:
	+$(MAKE) --no-print-directory BUILD=fuzz fuzz-programs
endif
fuzz: fuzz-programs
	tests/fuzz/guided --seconds $(or $(SECONDS),300) $(TARGETS)

# Random operations by the reference and by us on copies of an image, for hours.
.PHONY: fuzz-nightly
fuzz-nightly:
	+$(MAKE) --no-print-directory BUILD=release all tests
	tests/fuzz/differential --seed $(or $(SEED),$(shell date +%s)00000) \
		--count $(or $(COUNT),10000)

# Everything that is tested, from a fresh clone: packages, programs as users have
# them and under sanitizers, the demo guest, then the runner.
.PHONY: check asan tsan install-deps
check:
	configs/install-packages build check nested demo guests
	+$(MAKE) --no-print-directory BUILD=release all tests
	+$(MAKE) --no-print-directory BUILD=asan asan-programs
	+$(MAKE) --no-print-directory BUILD=fuzz fuzz-programs
	+$(MAKE) --no-print-directory build/demo/base.qcow2 build/guests/debian.qcow2
	tests/run

.PHONY: asan-programs
asan-programs: $(PROGRAMS) tests
asan:
	+$(MAKE) --no-print-directory BUILD=asan asan-programs
	tests/run --builds asan unit device image
tsan:
	+$(MAKE) --no-print-directory BUILD=tsan tests
	tests/run --builds tsan unit device

install-deps:
	configs/install-packages build check nested demo guests bench

.PHONY: lint
lint:
	tests/lint

# The demo guest's disk; demo.qcow2 is what the user writes to, an overlay of it.
DEMO_RECIPE := $(wildcard configs/fetch-*) $(shell find configs/demo -type f ! -name '*.pyc')
build/demo/base.qcow2: $(DEMO_RECIPE)
	configs/install-packages demo
	configs/demo/build $(@D)

# A whole Debian system, and other programs that tests boot.
build/guests/debian.qcow2: $(DEMO_RECIPE) $(shell find configs/guests -type f)
	configs/install-packages demo guests
	configs/guests/build $(@D)

# Figures against the reference on this machine: pairs of runs, medians, ratios.
.PHONY: bench
bench:
	configs/install-packages build bench
	+$(MAKE) --no-print-directory BUILD=release all build/release/tests/bench/blkbench
	tests/bench/run

# A Debian guest on this terminal, serial console and monitor.
.PHONY: demo
demo:
	@configs/install-packages build demo
	@+$(MAKE) --no-print-directory BUILD=release all build/demo/base.qcow2
	@configs/demo/run

# Downloaded packages stay; `make distclean` removes them too.
.PHONY: install install-completions install-manuals
install: all install-completions install-manuals
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 build/cowvm build/cowimg $(DESTDIR)$(PREFIX)/bin/
MAN := $(DESTDIR)$(PREFIX)/share/man
install-manuals:
	install -d $(MAN)/man1 $(MAN)/man7
	install -m 644 block/img/cowimg.1 vmm/cowvm.1 $(MAN)/man1/
	install -m 644 block/cowvm-images.7 monitor/cowvm-monitor.7 $(MAN)/man7/
COMPLETIONS := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
install-completions:
	install -d $(COMPLETIONS)
	install -m 644 vmm/cowvm.bash $(COMPLETIONS)/cowvm
	install -m 644 block/img/cowimg.bash $(COMPLETIONS)/cowimg

.PHONY: clean distclean
clean:
	@mkdir -p build
	find build -mindepth 1 -maxdepth 1 ! -name cache -exec rm -rf {} +
distclean:
	rm -rf build

-include $(shell find $(O) -name '*.d' 2>/dev/null)
