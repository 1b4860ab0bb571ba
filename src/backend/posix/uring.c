/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane's ring. It carries reads, writes, syncs and opens; every other step is a plain system call, which costs less
 * CPU there than through a ring. What was put goes to the kernel in one call a turn.
 */
#include "backend/posix/posix_private.h"

#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "util/alloc.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TELL_TSAN 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define TELL_TSAN 1
#endif

/* The kernel hands a transfer from its submission to its completion; a checker that sees only our side is told. */
#ifdef TELL_TSAN
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define HAND_OVER(xfer) __tsan_release(xfer)
#define TAKE_BACK(xfer) __tsan_acquire(xfer)
#else
#define HAND_OVER(xfer) ((void)(xfer))
#define TAKE_BACK(xfer) ((void)(xfer))
#endif

/* The kernel moves at most this much at a time (MAX_RW_COUNT). */
#define MOVE_BYTES_MAX 0x7ffff000u
#define WAIT_US_MAX (3600u * 1000000u)
#define CLOSE_WAIT_US 1000000u
#define DEPTH_MAX 4096u

/* user_data of what is no transfer; transfers are pointers, so never this small. */
enum tag {
	TAG_NOTHING = 1,               /* a cancel, the first NOP: its result tells nothing */
	TAG_WAKE = 2,
};

/* wake() writes to the event descriptor only if the lane sleeps, so a busy lane costs its callers no system call. */
enum lane_state {
	LANE_AWAKE = 0,
	LANE_ASLEEP,
	LANE_WOKEN,                    /* the next turn does not wait */
};

enum { CANCEL_ASKED = 1 };             /* xfer->ring_data */

struct kvk_ring {
	struct io_uring ring;
	struct kvk_posix *posix;
	struct open_how how_direct;
	struct open_how how_buffered;
	pid_t process;
	bool has_ring;
	bool wake_armed;
	bool has_memory;               /* slots for registered memory */
	int wake_fd;
	uint32_t depth;
	uint32_t in_flight;            /* transfers put and not ended; at most depth */
	uint32_t memory_slots;
	uint64_t wake_value;           /* read into by the kernel while wake_armed */
	_Atomic int lane_state;
};

/* Newest first; each is for the kernels that refuse the one before: 6.1, 6.0, 5.19, 5.18, 5.6, 5.1. */
static const unsigned setup_flags[] = {
	IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_COOP_TASKRUN |
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_COOP_TASKRUN |
		IORING_SETUP_SINGLE_ISSUER,
	IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_COOP_TASKRUN,
	IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL,
	IORING_SETUP_CLAMP,
	0,
};

static int init_ring(struct kvk_ring *ring, uint32_t entries)
{
	int err = -EINVAL;

	for (size_t i = 0; err == -EINVAL && i < sizeof(setup_flags) / sizeof(setup_flags[0]); i++) {
		struct io_uring_params params = { .flags = setup_flags[i] };

		err = ring->posix->sys->ring_init(entries, &ring->ring, &params);
	}
	if (err)
		return err;
	ring->has_ring = true;
	/* 5.11: waiting with a limit of time, without a timer request each time. */
	return ring->ring.features & IORING_FEAT_EXT_ARG ? 0 : -ENOSYS;
}

/* One empty request there and back: a filter may let rings be set up and not be entered. */
static int try_ring(struct kvk_ring *ring)
{
	struct __kernel_timespec limit = { .tv_sec = 1 };
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->ring);
	struct io_uring_cqe *cqe;
	int err;

	if (!sqe)
		return -EIO;
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data64(sqe, TAG_NOTHING);
	do {
		err = io_uring_submit_and_wait_timeout(&ring->ring, &cqe, 1, &limit, NULL);
	} while (err == -EINTR);
	if (err < 0)
		return err;
	err = cqe->res;
	io_uring_cqe_seen(&ring->ring, cqe);
	return err;
}

static void arm_wake(struct kvk_ring *ring)
{
	struct io_uring_sqe *sqe = ring->wake_armed ? NULL : io_uring_get_sqe(&ring->ring);

	if (!sqe)
		return;
	io_uring_prep_read(sqe, ring->wake_fd, &ring->wake_value, sizeof(ring->wake_value), 0);
	io_uring_sqe_set_data64(sqe, TAG_WAKE);
	ring->wake_armed = true;
}

/* The kernel must not write to wake_value once the ring's memory is free. */
static void disarm_wake(struct kvk_ring *ring)
{
	struct __kernel_timespec limit = { .tv_sec = CLOSE_WAIT_US / 1000000u };
	struct io_uring_cqe *cqe;

	if (!ring->wake_armed || eventfd_write(ring->wake_fd, 1))
		return;
	while (ring->wake_armed) {
		int err = io_uring_submit_and_wait_timeout(&ring->ring, &cqe, 1, &limit, NULL);

		if (err < 0 && err != -EINTR)
			return;
		while (!io_uring_peek_cqe(&ring->ring, &cqe)) {
			if (io_uring_cqe_get_data64(cqe) == TAG_WAKE)
				ring->wake_armed = false;
			io_uring_cqe_seen(&ring->ring, cqe);
		}
	}
}

static void ring_close(struct kvk_ring *ring)
{
	if (!ring)
		return;
	if (ring->has_ring) {
		/* In a child of fork the ring and the event are the parent's: only the copies are let go. */
		if (ring->process == getpid())
			disarm_wake(ring);
		io_uring_queue_exit(&ring->ring);
	}
	if (ring->wake_fd >= 0)
		ring->posix->sys->close(ring->wake_fd);
	kvk_mem_free(ring);
}

static int ring_open(struct kvk_ring **ret, struct kvk_backend *backend, uint32_t depth, uint32_t memory_slots)
{
	struct kvk_posix *posix = kvk_posix_of(backend);
	struct kvk_ring *ring;
	struct kvk_xfer direct = { .op = KVK_XFER_OPEN };
	struct kvk_xfer buffered = { .op = KVK_XFER_OPEN, .flags = KVK_XFER_BUFFERED };
	int err;

	if (depth == 0 || depth > DEPTH_MAX)
		return -EINVAL;
	ring = kvk_mem_zalloc(1, sizeof(*ring));
	if (!ring)
		return -ENOMEM;
	ring->posix = posix;
	ring->process = getpid();
	ring->depth = depth;
	ring->wake_fd = -1;
	ring->how_direct.flags = (uint32_t)kvk_posix_open_flags(posix, &direct);
	ring->how_direct.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
	ring->how_buffered = ring->how_direct;
	ring->how_buffered.flags = (uint32_t)kvk_posix_open_flags(posix, &buffered);

	/*
	 * A cancel for each transfer and the wake-up fit beside the transfers. The completion queue is twice as
	 * long, and each turn empties it, so it cannot overflow.
	 */
	err = init_ring(ring, 2 * depth + 8);
	if (err)
		goto fail;
	err = try_ring(ring);
	if (err)
		goto fail;
	ring->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (ring->wake_fd < 0) {
		err = -errno;
		goto fail;
	}
	/* Both only make things faster, and old kernels have neither. */
	io_uring_register_ring_fd(&ring->ring);
	ring->has_memory = memory_slots && !io_uring_register_buffers_sparse(&ring->ring, memory_slots);
	ring->memory_slots = memory_slots;
	*ret = ring;
	return 0;

fail:
	ring_close(ring);
	return err;
}

static void prepare_move(struct io_uring_sqe *sqe, const struct kvk_xfer *xfer)
{
	bool is_read = xfer->op == KVK_XFER_READ;
	const struct iovec *iov = xfer->iov;
	int fd = xfer->place->fd;
	unsigned bytes;

	if (xfer->iov_count != 1) {
		if (is_read)
			io_uring_prep_readv(sqe, fd, iov, xfer->iov_count, xfer->offset_bytes);
		else
			io_uring_prep_writev(sqe, fd, iov, xfer->iov_count, xfer->offset_bytes);
		return;
	}
	bytes = iov->iov_len < MOVE_BYTES_MAX ? (unsigned)iov->iov_len : MOVE_BYTES_MAX;
	if (xfer->memory_index < 0) {
		if (is_read)
			io_uring_prep_read(sqe, fd, iov->iov_base, bytes, xfer->offset_bytes);
		else
			io_uring_prep_write(sqe, fd, iov->iov_base, bytes, xfer->offset_bytes);
		return;
	}
	if (is_read)
		io_uring_prep_read_fixed(sqe, fd, iov->iov_base, bytes, xfer->offset_bytes, xfer->memory_index);
	else
		io_uring_prep_write_fixed(sqe, fd, iov->iov_base, bytes, xfer->offset_bytes, xfer->memory_index);
}

static bool is_for_ring(const struct kvk_ring *ring, const struct kvk_xfer *xfer)
{
	switch (xfer->op) {
	case KVK_XFER_READ:
		return !(xfer->flags & KVK_XFER_NOWAIT);
	case KVK_XFER_WRITE:
	case KVK_XFER_SYNC:
		return true;
	case KVK_XFER_OPEN:
		return ring->posix->has_openat2 && !ring->posix->base.caps.many_hosts &&
		       !(xfer->flags & (KVK_XFER_IF_CACHED | KVK_XFER_WRITABLE | KVK_XFER_DEVICE));
	default:
		return false;
	}
}

static int ring_put(struct kvk_ring *ring, struct kvk_xfer *xfer)
{
	struct io_uring_sqe *sqe;

	if (!is_for_ring(ring, xfer))
		return -EOPNOTSUPP;
	sqe = ring->in_flight < ring->depth ? io_uring_get_sqe(&ring->ring) : NULL;
	if (!sqe)
		return -EAGAIN;
	switch (xfer->op) {
	case KVK_XFER_SYNC:
		io_uring_prep_fsync(sqe, xfer->place->fd, IORING_FSYNC_DATASYNC);
		break;
	case KVK_XFER_OPEN:
		io_uring_prep_openat2(sqe, ring->posix->root_fd, xfer->name,
				      xfer->flags & KVK_XFER_BUFFERED ? &ring->how_buffered : &ring->how_direct);
		break;
	default:
		prepare_move(sqe, xfer);
		break;
	}
	io_uring_sqe_set_data(sqe, xfer);
	xfer->ring_data = 0;
	ring->in_flight++;
	HAND_OVER(xfer);
	return 0;
}

static void finish(struct kvk_ring *ring, struct kvk_xfer *xfer, int result, struct kvk_link *finished)
{
	TAKE_BACK(xfer);
	ring->in_flight--;
	if ((result == -EINTR || result == -EAGAIN) && !xfer->ring_data) {
		/* The kernel gave up for want of something, or for a signal of its own: the plain call waits. */
		kvk_posix_run(&ring->posix->base, xfer);
	} else if (xfer->op == KVK_XFER_OPEN) {
		kvk_posix_opened(ring->posix, xfer, result);
	} else {
		xfer->result = result;
	}
	kvk_list_push(finished, &xfer->link);
}

static void collect(struct kvk_ring *ring, struct kvk_link *finished)
{
	struct io_uring_cqe *cqes[64];
	unsigned count;

	while ((count = io_uring_peek_batch_cqe(&ring->ring, cqes, 64))) {
		for (unsigned i = 0; i < count; i++) {
			uint64_t tag = io_uring_cqe_get_data64(cqes[i]);

			if (tag == TAG_WAKE)
				ring->wake_armed = false;
			else if (tag != TAG_NOTHING)
				finish(ring, io_uring_cqe_get_data(cqes[i]), cqes[i]->res, finished);
		}
		io_uring_cq_advance(&ring->ring, count);
	}
}

static void enter_and_wait(struct kvk_ring *ring, uint64_t wait_us)
{
	uint64_t limit_us = wait_us < WAIT_US_MAX ? wait_us : WAIT_US_MAX;
	struct __kernel_timespec limit = {
		.tv_sec = (long long)(limit_us / 1000000u),
		.tv_nsec = (long long)(limit_us % 1000000u * 1000u),
	};
	struct io_uring_cqe *cqe;

	/* What could not be submitted (-EAGAIN, -EBUSY) stays in the queue and goes with the next turn. */
	io_uring_submit_and_wait_timeout(&ring->ring, &cqe, 1, &limit, NULL);
}

static void ring_turn(struct kvk_ring *ring, struct kvk_link *finished, uint64_t wait_us)
{
	int state = LANE_AWAKE;

	arm_wake(ring);
	/*
	 * A wake() before this line finds LANE_AWAKE, leaves LANE_WOKEN, and we do not wait; one after it finds
	 * LANE_ASLEEP and ends the wait through the event. One that comes too late for this wait ends the next.
	 */
	if (wait_us && ring->wake_armed &&
	    atomic_compare_exchange_strong(&ring->lane_state, &state, LANE_ASLEEP))
		enter_and_wait(ring, wait_us);
	else if (io_uring_sq_ready(&ring->ring) ||
		 IO_URING_READ_ONCE(*ring->ring.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))
		io_uring_submit_and_get_events(&ring->ring);
	atomic_exchange(&ring->lane_state, LANE_AWAKE);
	collect(ring, finished);
}

static void ring_wake(struct kvk_ring *ring)
{
	if (atomic_exchange(&ring->lane_state, LANE_WOKEN) == LANE_ASLEEP)
		eventfd_write(ring->wake_fd, 1);
}

static void ring_cancel(struct kvk_ring *ring, struct kvk_xfer *xfer)
{
	struct io_uring_sqe *sqe;

	if (xfer->ring_data)
		return;
	sqe = io_uring_get_sqe(&ring->ring);
	if (!sqe)
		return;
	io_uring_prep_cancel(sqe, xfer, 0);
	io_uring_sqe_set_data64(sqe, TAG_NOTHING);
	xfer->ring_data = CANCEL_ASKED;
}

static int ring_set_memory(struct kvk_ring *ring, uint32_t slot, void *base, uint64_t bytes)
{
	struct iovec iov = { base, base ? bytes : 0 };
	__u64 no_tag = 0;
	int ret;

	if (slot >= ring->memory_slots)
		return -EINVAL;
	if (!ring->has_memory)
		return -EOPNOTSUPP;
	ret = io_uring_register_buffers_update_tag(&ring->ring, slot, &iov, &no_tag, 1);
	if (ret < 0)
		return ret;
	return ret == 1 ? 0 : -EIO;
}

int kvk_posix_ring_probe(struct kvk_posix *posix, char *note, size_t note_bytes)
{
	struct kvk_ring *ring;
	int err = ring_open(&ring, &posix->base, 1, 0);

	if (!err)
		ring_close(ring);
	else if (err == -EPERM || err == -EACCES)
		snprintf(note, note_bytes, "io_uring is forbidden to this process (a container's filter, or "
			 "kernel.io_uring_disabled): %s", strerror(-err));
	else if (err == -ENOSYS)
		snprintf(note, note_bytes, "this kernel has no io_uring, or one older than 5.11");
	else
		snprintf(note, note_bytes, "io_uring does not work here: %s", strerror(-err));
	return err;
}

const struct kvk_ring_ops kvk_posix_ring = {
	.open = ring_open,
	.close = ring_close,
	.put = ring_put,
	.turn = ring_turn,
	.wake = ring_wake,
	.cancel = ring_cancel,
	.set_memory = ring_set_memory,
};
