import CSIMD
import Operators

#if canImport(Glibc)
  import Glibc
#endif

/// How the CPU keeps weights: as the checkpoint has them, read where it is mapped, or converted when they are loaded.
/// Raw values are those that `--weight-dtype` takes.
public enum CPUWeightType: String, CaseIterable, Hashable, Sendable {
  case f32
  case bf16
  case fp8E4M3 = "fp8_e4m3"
  case nvfp4

  var storage: nb_weight_type {
    switch self {
    case .f32: NB_WEIGHT_F32
    case .bf16: NB_WEIGHT_BF16
    case .fp8E4M3: NB_WEIGHT_FP8_E4M3
    case .nvfp4: NB_WEIGHT_NVFP4
    }
  }
}

/// A weight [outputs, inputs] as the kernels read it, in the mapped checkpoint or converted: parts stacked along the outputs.
public struct CPUMatrix {
  struct Part {
    enum Values {
      case plain(nb_weight_type, UnsafeRawPointer)
      case e4m3(codes: UnsafePointer<UInt8>, factors: [Float])
      case converted(ConvertedWeight)
    }

    let values: Values
    /// Outputs of this part, in the outputs of the whole.
    let outputs: Range<Int>

    init(_ view: WeightView, bytes: UnsafeRawPointer, firstOutput: Int) {
      values =
        switch view.type {
        case .f32, .bf16, .f16: .plain(nb_weight_type(UInt32(view.type.rawValue)), bytes)
        case .e4m3Block128: .e4m3(codes: bytes.assumingMemoryBound(to: UInt8.self), factors: view.blockFactors)
        }
      outputs = firstOutput..<firstOutput + view.rows
    }

    init(_ weight: ConvertedWeight, firstOutput: Int) {
      values = .converted(weight)
      outputs = firstOutput..<firstOutput + weight.outputs
    }
  }

  let parts: [Part]
  public let outputs: Int
  public let inputs: Int

  /// The matrix in another type; itself if it has that type already.
  func converted(to type: CPUWeightType, level: nb_level, workers: WorkerPool) -> CPUMatrix {
    let isConverted = parts.allSatisfy { part in
      if case .plain(let current, _) = part.values { current == type.storage } else { false }
    }
    return isConverted
      ? self : CPUMatrix(ConvertedWeight(self, type: type.storage, level: level, workers: workers), inputs: inputs)
  }

  private init(_ weight: ConvertedWeight, inputs: Int) {
    parts = [Part(weight, firstOutput: 0)]
    outputs = weight.outputs
    self.inputs = inputs
  }

  init(_ views: [WeightView]) throws(CPUBackendError) {
    var parts: [Part] = []
    var outputs = 0
    for view in views {
      guard view.columns == views[0].columns else {
        throw .mismatchedInputs(expected: views[0].columns, found: view.columns)
      }
      guard let bytes = view.bytes.baseAddress, view.rows > 0, view.columns > 0 else { throw .emptyWeight }
      parts.append(Part(view, bytes: bytes, firstOutput: outputs))
      outputs += view.rows
    }
    guard let first = views.first else { throw .emptyWeight }
    self.parts = parts
    self.outputs = outputs
    self.inputs = first.columns
  }

  /// Calls `body` with the rows that make up some outputs, in pieces: element type, memory, one factor a row of the memory
  /// for the types that have them, the range of rows in that memory, and the output that the range begins with. E4M3 rows are decoded, a few at a time.
  @inline(__always)
  func withRows(
    _ range: Range<Int>, level: nb_level,
    _ body: (
      _ type: nb_weight_type, _ memory: UnsafeRawPointer, _ factors: UnsafePointer<Float>?, _ rows: Range<Int>,
      _ firstOutput: Int
    ) -> Void
  ) {
    for part in parts {
      let overlap = range.clamped(to: part.outputs)
      guard !overlap.isEmpty else { continue }
      let rows = overlap.lowerBound - part.outputs.lowerBound..<overlap.upperBound - part.outputs.lowerBound
      switch part.values {
      case .plain(let type, let bytes): body(type, bytes, nil, rows, overlap.lowerBound)
      case .converted(let weight):
        body(weight.type, UnsafeRawPointer(weight.bytes), UnsafePointer(weight.factors), rows, overlap.lowerBound)
      case .e4m3(let codes, let factors):
        factors.withUnsafeBufferPointer { factors in
          var weights = nb_e4m3_weights(codes: codes, factors: factors.baseAddress, width: Int64(inputs))
          let piece = 16
          withUnsafeTemporaryAllocation(of: Float.self, capacity: piece * inputs) { decoded in
            guard let memory = decoded.baseAddress else { return }
            for first in stride(from: rows.lowerBound, to: rows.upperBound, by: piece) {
              let end = min(first + piece, rows.upperBound)
              nb_e4m3_rows(level, &weights, Int64(first), Int64(end), memory)
              body(NB_WEIGHT_F32, memory, nil, 0..<end - first, overlap.lowerBound + first - rows.lowerBound)
            }
          }
        }
      }
    }
  }
}

/// A weight in another type than the checkpoint's, in memory of its own.
final class ConvertedWeight {
  let type: nb_weight_type
  let outputs: Int
  /// [outputs] rows of `nb_weight_row_bytes`.
  let bytes: UnsafeMutableRawPointer
  /// [outputs] factors of the rows.
  let factors: UnsafeMutablePointer<Float>

  init(_ source: CPUMatrix, type: nb_weight_type, level: nb_level, workers: WorkerPool) {
    let (outputs, width) = (source.outputs, source.inputs)
    let rowBytes = Int(nb_weight_row_bytes(type, Int64(width)))
    self.type = type
    self.outputs = outputs
    bytes = Self.allocate(outputs * rowBytes)
    factors = .allocate(capacity: outputs)
    let (bytes, factors) = (bytes, factors)
    let rowsPerPiece = 64
    workers.run((outputs + rowsPerPiece - 1) / rowsPerPiece) { piece, _ in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: width) { row in
        guard let values = row.baseAddress else { return }
        let range = piece * rowsPerPiece..<min((piece + 1) * rowsPerPiece, outputs)
        source.withRows(range, level: level) { sourceType, memory, _, rows, firstOutput in
          for (offset, index) in rows.enumerated() {
            nb_weight_row(level, sourceType, memory, Int64(width), Int64(index), values)
            let output = firstOutput + offset
            factors[output] = nb_weight_encode_row(level, type, values, Int64(width), bytes + output * rowBytes)
          }
        }
      }
    }
  }

  /// In huge pages where they are large and the system allows.
  private static func allocate(_ byteCount: Int) -> UnsafeMutableRawPointer {
    let hugePage = 1 << 21
    guard byteCount >= hugePage else { return .allocate(byteCount: byteCount, alignment: 64) }
    let rounded = (byteCount + hugePage - 1) / hugePage * hugePage
    let memory = UnsafeMutableRawPointer.allocate(byteCount: rounded, alignment: hugePage)
    #if os(Linux)
      madvise(memory, rounded, Int32(MADV_HUGEPAGE))
    #endif
    return memory
  }

  deinit {
    bytes.deallocate()
    factors.deallocate()
  }
}

/// A float32 vector, padded to full SIMD registers.
public struct CPUVector {
  let values: [Float]
}

/// What can be wrong with weights given to the CPU backend.
public enum CPUBackendError: Error, Hashable, Sendable, CustomStringConvertible {
  case mismatchedInputs(expected: Int, found: Int)
  case emptyWeight

  public var description: String {
    switch self {
    case .mismatchedInputs(let expected, let found):
      "expected stacked weights with the same number of inputs (\(expected)), found \(found); check the checkpoint's shapes"
    case .emptyWeight: "expected a weight with at least one row and column, found none; check the checkpoint's shapes"
    }
  }
}
