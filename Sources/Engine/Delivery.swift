import Synchronization

/// Hands events to their streams on a thread of its own. Waking a client's task costs more than anything else that a token costs the
/// engine; so the step loop leaves its events here, all of a step at once, and goes on.
final class Delivery: Sendable {
  typealias Continuation = AsyncThrowingStream<GenerationEvent, any Error>.Continuation

  enum Item: Sendable {
    case event(GenerationEvent, Continuation)
    case end(EngineError?, Continuation)
  }

  private struct State {
    var items: [Item] = []
    var isClosed = false
  }

  let capacity: Int
  private let state = Mutex(State())
  private let bell = Bell()
  private let nanoseconds = Atomic<Int64>(0)

  /// - Parameter capacity: items that are posted without allocating, before any have been.
  init(capacity: Int) {
    self.capacity = capacity
    state.withLock { $0.items.reserveCapacity(capacity) }
  }

  /// Processor time that deliveries have taken.
  var time: Duration { .nanoseconds(nanoseconds.load(ordering: .relaxed)) }

  /// Takes over the items; those of earlier calls are delivered before. Three arrays take turns, so that nothing is allocated once they
  /// have grown to the largest step.
  func post(_ items: inout [Item]) {
    guard !items.isEmpty else { return }
    state.withLock { state in
      if state.items.isEmpty {
        swap(&state.items, &items)
      } else {
        state.items += items
      }
    }
    items.removeAll(keepingCapacity: true)
    bell.ring()
  }

  /// Lets `run` end once everything is delivered.
  func close() {
    state.withLock { $0.isClosed = true }
    bell.ring()
  }

  /// Delivers until `close`.
  func run() {
    var items: [Item] = []
    items.reserveCapacity(capacity)
    var isClosed = false
    while !isClosed {
      bell.wait()
      state.withLock { state in
        swap(&state.items, &items)
        isClosed = state.isClosed
      }
      for item in items {
        switch item {
        case .event(let event, let continuation): continuation.yield(event)
        case .end(let error, let continuation): continuation.finish(throwing: error)
        }
      }
      items.removeAll(keepingCapacity: true)
      nanoseconds.store(ThreadClock.now.nanoseconds, ordering: .relaxed)
    }
  }
}
