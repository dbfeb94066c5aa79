//! In which order waiters get their lock (C-3).

/// How a caller waits for a lock that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitMode {
    /// In a queue; a running thread may take a free lock before the head of the queue has woken,
    /// but never again once the head has waited for 2 ms.
    Fair,
    /// In a queue, in strict order of arrival.
    Fifo,
    /// By an attempt now and then, with no place in the queue.
    Polling,
}
