/// A token that may be chosen.
struct Candidate {
  var token: Int32
  var logit: Float
  /// exp of the scaled logit, relative to the most likely token's 1.
  var weight = 0.0

  static func isBefore(_ a: Candidate, _ b: Candidate) -> Bool {
    a.logit != b.logit ? a.logit > b.logit : a.token < b.token
  }
}

extension [Candidate] {
  /// Sorts in place, the likeliest first. The library's sort would allocate; the order is total, so the result is the same.
  mutating func sortByLogit() {
    withUnsafeMutableBufferPointer { heap in
      // A heap whose root is the last in the order: each turn moves it behind those that are left.
      for parent in stride(from: heap.count / 2 - 1, through: 0, by: -1) { Self.sift(heap, parent, heap.count) }
      for end in stride(from: heap.count - 1, to: 0, by: -1) {
        heap.swapAt(0, end)
        Self.sift(heap, 0, end)
      }
    }
  }

  private static func sift(_ heap: UnsafeMutableBufferPointer<Candidate>, _ root: Int, _ count: Int) {
    var parent = root
    while true {
      var child = 2 * parent + 1
      guard child < count else { return }
      if child + 1 < count, Candidate.isBefore(heap[child], heap[child + 1]) { child += 1 }
      guard Candidate.isBefore(heap[parent], heap[child]) else { return }
      heap.swapAt(parent, child)
      parent = child
    }
  }
}
