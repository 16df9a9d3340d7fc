/// Whole pages: all layers' records of a page are contiguous, so each of these is one copy.
extension PagePool {
  /// The bytes of a page over all layers.
  public func bytes(ofPage page: Int) -> UnsafeMutableRawBufferPointer {
    precondition(page >= 0 && page < pageCount, "page \(page) of a pool of \(pageCount)")
    return UnsafeMutableRawBufferPointer(start: base + page * pageBytes, count: pageBytes)
  }

  /// Makes `target` an equal page of `source`.
  public func copyPage(_ source: Int, to target: Int) {
    bytes(ofPage: target).copyMemory(from: UnsafeRawBufferPointer(bytes(ofPage: source)))
  }
}
