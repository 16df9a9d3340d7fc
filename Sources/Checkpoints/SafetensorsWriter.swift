import JSON

/// Writes a safetensors file: tensors are named first, then their bytes follow in the same order. The file appears under its
/// name only when it is complete.
public struct SafetensorsWriter: ~Copyable {
  /// A tensor to come.
  public struct Tensor: Sendable {
    public let name: String
    public let dtype: TensorType
    public let shape: [Int]

    public init(name: String, dtype: TensorType, shape: [Int]) {
      self.name = name
      self.dtype = dtype
      self.shape = shape
    }
  }

  private let path: String
  private let file: WholeFile
  private var remaining: Int

  /// Creates the file and writes its header.
  /// - Throws: `CheckpointError.unwritable`.
  public init(path: String, tensors: [Tensor], metadata: [String: String] = [:]) throws(CheckpointError) {
    var header = JSONObject()
    if !metadata.isEmpty {
      header["__metadata__"] = .object(
        JSONObject(metadata.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) }))
    }
    var offset = 0
    for tensor in tensors {
      let end = offset + tensor.shape.reduce(tensor.dtype.bitWidth, *) / 8
      header[tensor.name] = [
        "dtype": .string(tensor.dtype.rawValue), "shape": .array(tensor.shape.map { .integer(Int64($0)) }),
        "data_offsets": [.integer(Int64(offset)), .integer(Int64(end))],
      ]
      offset = end
    }
    var text = JSONValue.object(header).serializedBytes()
    while text.count % 8 != 0 { text.append(0x20) }
    let file = try WholeFile(path: path)
    try file.append(withUnsafeBytes(of: UInt64(text.count).littleEndian) { Array($0) } + text)
    self.path = path
    self.file = file
    remaining = offset
  }

  /// Appends bytes of the tensors in their order, in pieces of any size.
  /// - Throws: `CheckpointError.unwritable`, also for more bytes than the header announced.
  public mutating func append(_ bytes: UnsafeRawBufferPointer) throws(CheckpointError) {
    guard bytes.count <= remaining else {
      throw .unwritable(path: path, reason: "got \(bytes.count - remaining) bytes more than its header says")
    }
    try file.append(bytes)
    remaining -= bytes.count
  }

  /// Completes the file and gives it its name.
  /// - Throws: `CheckpointError.unwritable`, also for fewer bytes than the header announced.
  public consuming func finish() throws(CheckpointError) {
    guard remaining == 0 else {
      throw .unwritable(path: path, reason: "got \(remaining) bytes fewer than its header says")
    }
    try file.finish()
  }
}
