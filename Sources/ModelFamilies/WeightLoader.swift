import Checkpoints
import Operators

/// Finds weights in a checkpoint, checks their shapes and hands them to the device.
struct WeightLoader<Ops: Operators> {
  let checkpoint: Checkpoint
  let operators: Ops

  /// Weights [outputs, inputs] stacked along their outputs, each given by name and outputs.
  /// - Throws: `CheckpointError` for a missing tensor, an unexpected shape or an element type that can't be multiplied with.
  func matrix(_ parts: (name: String, outputs: Int)..., inputs: Int) throws -> Ops.Matrix {
    try operators.loadMatrix(parts.map { try view($0.name, shape: [$0.outputs, inputs]) })
  }

  /// As `matrix`, for weights that must keep their values: embedding tables, routers, factors of attention's queries and outputs.
  func table(_ parts: (name: String, outputs: Int)..., inputs: Int) throws -> Ops.Matrix {
    try operators.loadTable(parts.map { try view($0.name, shape: [$0.outputs, inputs]) })
  }

  /// Vectors, concatenated, each given by name and length.
  func vector(_ parts: (name: String, count: Int)...) throws -> Ops.Vector {
    try operators.loadVector(parts.map { try view($0.name, shape: [$0.count]) })
  }

  private func view(_ name: String, shape: [Int]) throws -> WeightView {
    let tensor = try checkpoint.tensor(named: name)
    guard tensor.shape == shape else {
      throw CheckpointError.invalidTensor(
        name: name, path: tensor.path, expected: "of shape \(shape) after config.json", found: "\(tensor.shape)")
    }
    let (rows, columns) = (shape.count == 2 ? shape[0] : 1, shape[shape.count - 1])
    let type: WeightType
    switch tensor.dtype {
    case .float8E4M3 where shape.count == 2:
      return WeightView(
        type: .e4m3Block128, rows: rows, columns: columns, bytes: tensor.bytes,
        blockFactors: try blockFactors(name + "_scale_inv", rows: rows, columns: columns))
    case .float32: type = .f32
    case .bfloat16: type = .bf16
    case .float16: type = .f16
    default:
      throw CheckpointError.invalidTensor(
        name: name, path: tensor.path, expected: "in BF16, F16 or F32", found: tensor.dtype.rawValue)
    }
    return WeightView(
      type: type, rows: rows, columns: columns, bytes: tensor.bytes)
  }

  /// The factors of an E4M3 weight's blocks; 128 x 128 is the only size that is published.
  private func blockFactors(_ name: String, rows: Int, columns: Int) throws -> [Float] {
    let size = checkpoint.configuration.quantization?.weightBlockSize ?? [128, 128]
    guard size == [128, 128] else {
      throw CheckpointError.unsupportedFeature(
        "E4M3 weights in blocks of \(size) (expected [128, 128])", path: checkpoint.directory)
    }
    let tensor = try checkpoint.tensor(named: name)
    let shape = [(rows + 127) / 128, (columns + 127) / 128]
    guard tensor.shape == shape, tensor.dtype == .float32 else {
      throw CheckpointError.invalidTensor(
        name: name, path: tensor.path, expected: "of shape \(shape) in F32",
        found: "\(tensor.shape) in \(tensor.dtype.rawValue)")
    }
    return (0..<tensor.elementCount).map { tensor.bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
  }
}
