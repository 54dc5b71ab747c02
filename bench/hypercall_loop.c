/* The floor for bench/hypercall.py: a guest's hypercall exits on /dev/kvm, answered by nothing but C.
 *
 *     hypercall_loop IMAGE ADDRESS ENTRY
 *
 * IMAGE is guest memory as pvh's KVM engine would run it, from guest-physical ADDRESS on: hypercalls are already
 * `out 0xea, al`. Each is answered by RAX = 1. Prints the nanoseconds between the guest's first and second byte on port
 * 0xe9; the exit status is the byte it writes to port 0xf4.
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MEMORY = 4 << 20, HYPERCALL = 0xea, CONSOLE = 0xe9, EXIT = 0xf4 };

static int must(int result, const char *what)
{
	if (result < 0)
		err(2, "%s", what);
	return result;
}

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* The state that a PVH guest is entered in: flat, paging off. */
static void enter(int vcpu, unsigned long long entry)
{
	struct kvm_segment code = { .limit = ~0u, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1 };
	struct kvm_segment data = code;
	struct kvm_regs regs = { .rip = entry, .rflags = 2 };
	struct kvm_sregs sregs;

	data.type = 3;
	must(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.ss = data;
	sregs.cr0 = 0x11;
	must(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "usage: hypercall_loop IMAGE ADDRESS ENTRY");
	int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	int vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP };
	must(ioctl(vm, KVM_ENABLE_CAP, &split), "KVM_CAP_SPLIT_IRQCHIP");
	char *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned long long address = strtoull(argv[2], NULL, 0);
	int image = must(open(argv[1], O_RDONLY), argv[1]);
	if (memory == MAP_FAILED || address >= MEMORY || read(image, memory + address, MEMORY - address) <= 0)
		errx(2, "no memory for the image");
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY, .userspace_addr = (unsigned long)memory };
	must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
	int vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	struct kvm_run *run = mmap(NULL, must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE"),
				   PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		err(2, "kvm_run");
	enter(vcpu, strtoull(argv[3], NULL, 0));
	run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS; /* as pvh has them */

	for (long long begin = 0;;) {
		must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
		if (run->exit_reason != KVM_EXIT_IO)
			errx(2, "KVM left the guest for reason %u", run->exit_reason);
		switch (run->io.port) {
		case HYPERCALL:
			run->s.regs.regs.rax = 1;
			run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
			break;
		case CONSOLE:
			if (begin)
				printf("%lld\n", now() - begin);
			begin = now();
			break;
		case EXIT:
			return *((unsigned char *)run + run->io.data_offset);
		}
	}
}
