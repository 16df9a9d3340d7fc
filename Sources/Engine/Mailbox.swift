import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What other threads ask of the engine's thread, in the order in which they asked.
final class Mailbox: Sendable {
  enum Message {
    case submit(RequestState)
    case cancel(id: UInt64)
    /// Runs on the engine's thread between two steps.
    case perform((EngineCore) -> Void)
    case shutDown(drain: Bool)
  }

  private struct State: ~Copyable {
    var messages: [Message] = []
    var isClosed = false
    var nextID: UInt64 = 0
    var hasStopped = false
    var stopHandlers: [@Sendable () -> Void] = []
  }

  private let state = Mutex(State())
  private let bell = Bell()
  /// Spares the engine's thread the lock, and an allocation, in most steps.
  private let hasMessages = Atomic<Bool>(false)
  /// Requests that wait for their first step.
  let queuedCount = Atomic<Int>(0)

  /// Number of requests so far; ids ascend in the order of submission.
  func nextID() -> UInt64 {
    state.withLock { state in
      state.nextID += 1
      return state.nextID
    }
  }

  /// - Returns: false if the engine takes no more messages.
  func post(_ message: sending Message) -> Bool {
    let box = Transfer(message)
    let isOpen = state.withLock { state in
      guard !state.isClosed else { return false }
      state.messages.append(box.value)
      hasMessages.store(true, ordering: .releasing)
      return true
    }
    if isOpen { bell.ring() }
    return isOpen
  }

  /// Waits for messages if `blocking`, and moves them to `inbox`.
  func collect(into inbox: inout [Message], blocking: Bool) {
    if blocking { bell.wait() } else if !hasMessages.load(ordering: .acquiring) { return }
    hasMessages.store(false, ordering: .releasing)
    let box = Transfer([Message]())
    state.withLock { state in swap(&state.messages, &box.value) }
    inbox = box.value
  }

  /// Calls `handler` when the engine's thread is done.
  func whenStopped(_ handler: @escaping @Sendable () -> Void) {
    let hasStopped = state.withLock { state in
      if !state.hasStopped { state.stopHandlers.append(handler) }
      return state.hasStopped
    }
    if hasStopped { handler() }
  }

  func announceStop() {
    let handlers = state.withLock { state in
      state.hasStopped = true
      defer { state.stopHandlers = [] }
      return state.stopHandlers
    }
    for handler in handlers { handler() }
  }

  /// Takes no more messages.
  func close() { state.withLock { $0.isClosed = true } }
}

/// Carries a value that only one thread at a time uses across an isolation boundary.
final class Transfer<Value>: @unchecked Sendable {
  var value: Value
  init(_ value: Value) { self.value = value }
}

/// Wakes one waiting thread; a ring without a waiter is remembered.
final class Bell: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private var isRung = false

  init() {
    mutex.initialize(to: pthread_mutex_t())
    condition.initialize(to: pthread_cond_t())
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(condition, nil)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  func ring() {
    pthread_mutex_lock(mutex)
    isRung = true
    pthread_cond_signal(condition)
    pthread_mutex_unlock(mutex)
  }

  func wait() {
    pthread_mutex_lock(mutex)
    while !isRung { pthread_cond_wait(condition, mutex) }
    isRung = false
    pthread_mutex_unlock(mutex)
  }
}
