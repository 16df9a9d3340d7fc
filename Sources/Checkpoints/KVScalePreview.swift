import KVQuantization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The KV scales of a model folder, found without its weights: the names are in the shard index or in the file's header, and of the
/// tensors only the few bytes of each scale are read. Nothing is mapped.
public struct KVScalePreview: Sendable {
  /// What `KVScaleSet(checkpoint:)` finds in the same folder.
  public private(set) var scales: KVScaleSet?
  /// The first file that would have told more and can't be read; a real run fails on it.
  public private(set) var obstacle: CheckpointError?
  /// Bytes of all weight files; nil where one can't be read.
  public private(set) var weightBytes: Int?

  /// - Throws: `CheckpointError` for scales that can be read and can't be used.
  public init(directory: String, configuration: ModelConfiguration) throws(CheckpointError) {
    var found: [Piece] = []
    var sizes: [Int] = []
    do throws(CheckpointError) {
      for file in try Self.files(directory) {
        let path = "\(directory)/\(file.name)"
        guard file.holdsScales else {
          sizes.append(try UnmappedFile(path: path).byteCount)
          continue
        }
        let (pieces, size) = try Self.pieces(path)
        found += pieces
        sizes.append(size)
      }
      weightBytes = sizes.reduce(0, +)
    } catch { obstacle = error }
    var tensors: [KVScaleSet.Scale] = []
    for piece in found { tensors.append(try .init(piece)) }
    scales = try KVScaleSet(tensors: tensors, quantization: configuration.quantization, directory: directory)
  }

  /// The weight files, those with scales first, so that a missing shard of weights doesn't hide them.
  private static func files(_ directory: String) throws(CheckpointError) -> [(name: String, holdsScales: Bool)] {
    let index = "\(directory)/model.safetensors.index.json"
    guard access("\(directory)/model.safetensors", F_OK) != 0, access(index, F_OK) == 0 else {
      return [("model.safetensors", true)]
    }
    let shards = try ShardIndex(path: index)
    let holders = Set(shards.tensorNames.filter { KVScaleName($0) != nil }.compactMap { shards.fileOfTensor[$0] })
    return shards.fileNames.indices.sorted { holders.contains($0) && !holders.contains($1) }
      .map { (shards.fileNames[$0], holders.contains($0)) }
  }

  private static func pieces(_ path: String) throws(CheckpointError) -> ([Piece], byteCount: Int) {
    let file = try UnmappedFile(path: path)
    var head = try file.read(at: 0, count: min(8, file.byteCount))
    if head.count == 8 {
      let length = head.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      // A length beyond the limit or the file is the header's own fault to tell.
      let wanted = min(length, UInt64(SafetensorsFile.maximumHeaderBytes), UInt64(file.byteCount - 8))
      head += try file.read(at: 8, count: Int(wanted))
    }
    var pieces: [Piece] = []
    for entry in try SafetensorsHeader(bytes: head, path: path, byteCount: file.byteCount).entries
    where KVScaleName(entry.name) != nil {
      let bytes = try file.read(at: entry.range.lowerBound, count: min(8, entry.range.count))
      pieces.append(Piece(entry: entry, bytes: bytes, path: path))
    }
    return (pieces, file.byteCount)
  }

  /// A scale tensor and the bytes of its first element.
  fileprivate struct Piece {
    let entry: SafetensorsHeader.Entry
    let bytes: [UInt8]
    let path: String
  }
}

/// A file that is read in pieces.
private final class UnmappedFile {
  let path: String
  let byteCount: Int
  private let descriptor: Int32

  init(path: String) throws(CheckpointError) {
    self.path = path
    descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .unreadable(path: path, reason: String(cString: strerror(errno))) }
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      close(descriptor)
      throw .unreadable(path: path, reason: "not a regular file")
    }
    byteCount = Int(status.st_size)
  }

  deinit { close(descriptor) }

  func read(at offset: Int, count: Int) throws(CheckpointError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var filled = 0
    while filled < count {
      let got = bytes.withUnsafeMutableBytes {
        pread(descriptor, $0.baseAddress.map { $0 + filled }, count - filled, offset + filled)
      }
      if got < 0, errno == EINTR { continue }
      guard got > 0 else { throw .unreadable(path: path, reason: "it ends after \(offset + filled) bytes") }
      filled += got
    }
    return bytes
  }
}

extension SafetensorsHeader {
  fileprivate init(bytes: [UInt8], path: String, byteCount: Int) throws(CheckpointError) {
    let result = bytes.withUnsafeBytes { bytes in
      Result { () throws(CheckpointError) in try SafetensorsHeader(bytes: bytes, path: path, byteCount: byteCount) }
    }
    self = try result.get()
  }
}

extension KVScaleSet.Scale {
  fileprivate init(_ piece: KVScalePreview.Piece) throws(CheckpointError) {
    let entry = piece.entry
    let result = piece.bytes.withUnsafeBytes { bytes in
      Result { () throws(CheckpointError) in
        try KVScaleSet.Scale(name: entry.name, dtype: entry.dtype, shape: entry.shape, bytes: bytes, path: piece.path)
      }
    }
    self = try result.get()
  }
}
