/// Float32 [rows, width] in host memory, contiguous. Grows to the largest step and stays there. Begins at a cache line, so that no
/// vector of a row straddles two where the width is a multiple of 16.
public final class CPUActivations {
  public let width: Int
  public private(set) var base: UnsafeMutablePointer<Float>
  private var capacity = 1

  public init(width: Int) {
    self.width = width
    base = Self.allocate(max(1, width))
  }

  deinit { base.deallocate() }

  /// Makes room for `rows` rows; the contents are lost when that needs new memory.
  func reserve(rows: Int) {
    guard rows > capacity else { return }
    base.deallocate()
    capacity = max(rows, 2 * capacity)
    base = Self.allocate(capacity * width)
  }

  private static func allocate(_ count: Int) -> UnsafeMutablePointer<Float> {
    let bytes = UnsafeMutableRawPointer.allocate(byteCount: count * MemoryLayout<Float>.stride, alignment: 64)
    return bytes.initializeMemory(as: Float.self, repeating: 0, count: count)
  }

  /// Moves some rows to the top.
  /// - Parameter rows: ascending.
  func keepRows(_ rows: [Int32]) {
    for index in rows.indices where index != Int(rows[index]) {
      row(index).update(from: row(Int(rows[index])), count: width)
    }
  }

  /// Start of a row.
  func row(_ index: Int) -> UnsafeMutablePointer<Float> { base + index * width }
}
