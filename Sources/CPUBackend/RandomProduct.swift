import CSIMD
import Operators

/// A product of random weights with a few rows of inputs, for timing.
package final class RandomProduct {
  package static let leastOutputs = 64

  package let type: CPUWeightType
  package let outputs: Int
  /// Of the weights, block scales included.
  package let byteCount: Int
  private let operators: CPUOperators
  private let weight: CPUMatrix
  private let input: CPUActivations
  private let output: CPUActivations
  private let rows: Int

  /// - Parameters:
  ///   - width: inputs, a multiple of 128.
  ///   - byteCount: bytes of weights, rounded down to whole outputs.
  /// - Throws: `CPUBackendError.emptyWeight` if that is less than `leastOutputs`.
  package init(type: CPUWeightType, width: Int, rows: Int, byteCount: Int, workers: WorkerPool) throws {
    self.type = type
    self.rows = rows
    let rowBytes = Int(nb_weight_row_bytes(type.storage, Int64(width)))
    let partRows = Self.leastOutputs
    let partCount = byteCount / (rowBytes * partRows)
    outputs = partCount * partRows
    self.byteCount = outputs * rowBytes
    let operators = CPUOperators(attention: FastAttention(workers: workers), workers: workers, weightType: type)
    self.operators = operators
    // The same rows again and again, but the product has its own copy of each: they are in another type, so they are converted.
    let values = (0..<partRows * width).map { _ in Float.random(in: -1...1) }
    let halves = values.map { UInt16(truncatingIfNeeded: $0.bitPattern >> 16) }
    weight = try values.withUnsafeBytes { values in
      try halves.withUnsafeBytes { halves in
        let view =
          type == .f32
          ? WeightView(type: .bf16, rows: partRows, columns: width, bytes: halves)
          : WeightView(type: .f32, rows: partRows, columns: width, bytes: values)
        return try operators.loadMatrix(Array(repeating: view, count: partCount))
      }
    }
    input = CPUActivations(width: width)
    input.reserve(rows: rows)
    for row in 0..<rows {
      for column in 0..<width { input.row(row)[column] = Float.random(in: -1...1) }
    }
    output = CPUActivations(width: outputs)
    output.reserve(rows: rows)
  }

  package var levelName: String { String(cString: nb_level_name(operators.level)) }

  package func run() {
    operators.multiply(
      input.base, rows: rows, stride: input.width, weight, bias: nil, accumulate: false, into: output.base,
      outputStride: outputs)
  }
}
