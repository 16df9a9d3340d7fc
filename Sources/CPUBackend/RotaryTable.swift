import Operators

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Cosines and sines of a step's positions, computed once a step and used by every layer.
struct RotaryTable {
  private(set) var pairs = 0
  private(set) var interleaved = false
  /// [T, 2, pairs]: cosines, then sines, of each row.
  private var values: [Float] = []

  /// The angle is rounded to float32 before its cosine is taken, as Hugging Face transformers does: at position 100,000 the
  /// rounding moves the angle by up to 0.004, and a checkpoint was trained with it.
  mutating func fill(positions: [Int32], rotary: RotaryEmbedding) {
    pairs = rotary.inverseFrequencies.count
    interleaved = rotary.interleaved
    values.removeAll(keepingCapacity: true)
    for position in positions {
      for frequency in rotary.inverseFrequencies {
        values.append(Float(cos(Double(Float(position) * frequency))) * rotary.magnitude)
      }
      for frequency in rotary.inverseFrequencies {
        values.append(Float(sin(Double(Float(position) * frequency))) * rotary.magnitude)
      }
    }
  }

  /// Moves some rows to the top.
  /// - Parameter rows: ascending.
  mutating func keepRows(_ rows: [Int32]) {
    for index in rows.indices where index != Int(rows[index]) {
      for column in 0..<2 * pairs { values[index * 2 * pairs + column] = values[Int(rows[index]) * 2 * pairs + column] }
    }
  }

  /// Calls `body` with the table's memory: a job reads it without counting references, which its workers would share.
  func withRows(_ body: (Rows) -> Void) {
    values.withUnsafeBufferPointer { buffer in
      guard let base = buffer.baseAddress else { return }
      body(Rows(base: base, pairs: pairs, interleaved: interleaved))
    }
  }

  struct Rows {
    fileprivate let base: UnsafePointer<Float>
    let pairs: Int
    let interleaved: Bool

    func cosines(_ row: Int) -> UnsafePointer<Float> { base + row * 2 * pairs }
    func sines(_ row: Int) -> UnsafePointer<Float> { base + (row * 2 + 1) * pairs }
  }
}
