import CSIMD

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Searches over a row of logits. Equal logits are ordered by token id, so that results are defined.
struct LogitsRow {
  let values: UnsafeMutableBufferPointer<Float>

  /// The largest logit and the first token that has it; nil if a logit is NaN or none is finite.
  func maximum() -> (token: Int32, logit: Float)? {
    guard let base = values.baseAddress else { return nil }
    let token = nb_logits_maximum(base, Int64(values.count))
    return token < 0 ? nil : (Int32(token), values[Int(token)])
  }

  /// log of the sum of exp over the row.
  func logSumExp(maximum: Float) -> Double {
    var sum = 0.0
    for value in values { sum += exp(Double(value - maximum)) }
    return Double(maximum) + log(sum)
  }

  /// The `count`-th largest logit.
  func threshold(ofTop count: Int, heap: inout [Float]) -> Float {
    guard count < values.count else { return -.infinity }
    heap.removeAll(keepingCapacity: true)
    for value in values {
      if heap.count < count {
        heap.append(value)
        Self.siftUp(&heap)
      } else if value > heap[0] {
        heap[0] = value
        Self.siftDown(&heap)
      }
    }
    return heap.first ?? -.infinity
  }

  /// The `count` largest logits, largest first.
  func top(_ count: Int, heap: inout [Float]) -> [Candidate] {
    guard count > 0 else { return [] }
    let threshold = threshold(ofTop: count, heap: &heap)
    var found: [Candidate] = []
    for (index, value) in values.enumerated() where value >= threshold {
      found.append(Candidate(token: Int32(index), logit: value))
    }
    found.sortByLogit()
    return Array(found.prefix(count))
  }

  // A heap with the smallest value first.
  private static func siftUp(_ heap: inout [Float]) {
    var child = heap.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      if heap[parent] <= heap[child] { return }
      heap.swapAt(parent, child)
      child = parent
    }
  }

  private static func siftDown(_ heap: inout [Float]) {
    var parent = 0
    while true {
      var smallest = 2 * parent + 1
      guard smallest < heap.count else { return }
      if smallest + 1 < heap.count, heap[smallest + 1] < heap[smallest] { smallest += 1 }
      if heap[parent] <= heap[smallest] { return }
      heap.swapAt(parent, smallest)
      parent = smallest
    }
  }
}
