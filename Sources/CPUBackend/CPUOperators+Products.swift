import CSIMD
import Operators

/// How a product is cut into pieces of work: some outputs of some rows. Never inside a sum, so the cut changes no bits.
struct ProductPieces {
  let rowsPerPiece: Int
  let outputsPerPiece: Int
  let count: Int
  private let rows: Int
  private let outputs: Int
  /// Pieces side by side.
  private let columns: Int

  struct Piece {
    let rows: Range<Int>
    let outputs: Range<Int>
  }

  /// - Parameters:
  ///   - weightRows: rows of the weight for one output: 2 for a gated one.
  ///   - unit: outputs that stay together.
  init(rows: Int, outputs: Int, weightRows: Int = 1, unit: Int = 8, threads: Int) {
    // Enough work to outweigh the hand-out, few enough to balance two workers. Many rows: wide pieces, so that the inputs are read from
    // the cache less often. Few rows and a large matrix: wide pieces too, as memory takes a while to come up to speed at the start
    // of each.
    let width = rows < 16 ? min(max(outputs * weightRows / (threads * 8), 64), 1024) : 256
    self.rows = rows
    self.outputs = outputs
    rowsPerPiece = rows < 128 ? max(rows, 1) : 64
    outputsPerPiece = max(width / weightRows / unit, 1) * unit
    columns = (outputs + outputsPerPiece - 1) / outputsPerPiece
    count = columns * ((rows + rowsPerPiece - 1) / rowsPerPiece)
  }

  /// Rows by rows: pieces of the same rows follow one another.
  subscript(index: Int) -> Piece {
    let (row, output) = (index / columns * rowsPerPiece, index % columns * outputsPerPiece)
    return Piece(
      rows: row..<min(row + rowsPerPiece, rows), outputs: output..<min(output + outputsPerPiece, outputs))
  }
}

extension CPUOperators {
  public func linear(
    _ x: CPUActivations, _ weight: CPUMatrix, bias: CPUVector?, accumulate: Bool, into output: CPUActivations
  ) {
    multiply(
      x.base, rows: rowCount, stride: x.width, weight, bias: bias, accumulate: accumulate, into: output.base,
      outputStride: output.width)
  }

  public func projectHeads(
    _ x: CPUActivations, norm: RMSNorm<CPUVector>, _ weight: CPUMatrix, bias: CPUVector?,
    heads: AttentionHeads<CPUVector>, layer: Int, into output: CPUActivations
  ) {
    let pieces = ProductPieces(
      rows: rowCount, outputs: weight.outputs, unit: heads.dimension, threads: workers.threadCount)
    // Plain memory outside of the job: workers that count references to the same objects wait for one another.
    withStores(layer: layer, keys: heads.keys, values: heads.values) { stores, statistics in
      withPointers(bias, heads.queryNorm?.weight, heads.keyNorm?.weight) { bias, queryNorm, keyNorm in
        rotaryTable.withRows { table in
          let (queries, keys, dimension) = (heads.queries, heads.keys, heads.dimension)
          let (queryEpsilon, keyEpsilon) = (heads.queryNorm?.epsilon ?? 0, heads.keyNorm?.epsilon ?? 0)
          let level = level
          forEachPiece(pieces, of: x, norm: norm) { piece, input, _, worker in
            self.multiplyPiece(
              input, rows: piece.rows.count, stride: x.width, weight, outputs: piece.outputs, bias: bias,
              into: output.row(piece.rows.lowerBound), outputStride: output.width)
            let (ownQueries, ownKeys) = (queries.clamped(to: piece.outputs), keys.clamped(to: piece.outputs))
            for row in piece.rows {
              let values = output.row(row)
              nb_norm_rotate_heads(
                level, values + ownQueries.lowerBound, Int64(ownQueries.count / dimension), Int64(dimension), queryNorm,
                queryEpsilon, table.cosines(row), table.sines(row), Int64(table.pairs), table.interleaved ? 1 : 0)
              nb_norm_rotate_heads(
                level, values + ownKeys.lowerBound, Int64(ownKeys.count / dimension), Int64(dimension), keyNorm,
                keyEpsilon, table.cosines(row), table.sines(row), Int64(table.pairs), table.interleaved ? 1 : 0)
            }
            guard piece.outputs.upperBound > keys.lowerBound else { return }
            for run in stores.runs {
              guard let part = run.part(in: piece.rows) else { continue }
              stores.store(part, of: output, columns: piece.outputs, level: level, &statistics[worker])
            }
          }
        }
      }
    }
  }

  public func gatedLinear(
    _ x: CPUActivations, norm: RMSNorm<CPUVector>?, _ gateUp: CPUMatrix, bias: CPUVector?, into output: CPUActivations
  ) {
    guard rowCount >= 16 else {
      return gatedLinearOfFewRows(x, norm: norm, gateUp, bias: bias, into: output)
    }
    let pieces = ProductPieces(
      rows: rowCount, outputs: output.width, weightRows: 2, unit: 16, threads: workers.threadCount)
    bias.withPointer { bias in
      forEachPiece(pieces, of: x, norm: norm, floats: pieces.rowsPerPiece * pieces.outputsPerPiece) {
        piece, input, up, _ in
        self.gatedPiece(
          input, rows: piece.rows.count, stride: x.width, gateUp, outputs: piece.outputs, bias: bias, up: up,
          into: output.row(piece.rows.lowerBound), outputStride: output.width)
      }
    }
  }

  /// Few rows wait for the weights, which come fastest in long runs: gate and up in turn would start twice as many.
  private func gatedLinearOfFewRows(
    _ x: CPUActivations, norm: RMSNorm<CPUVector>?, _ gateUp: CPUMatrix, bias: CPUVector?, into output: CPUActivations
  ) {
    let (rows, width) = (rowCount, output.width)
    let products = gateUpProducts.reserve(rows * 2 * width * MemoryLayout<Float>.stride)
      .assumingMemoryBound(to: Float.self)
    let pieces = ProductPieces(rows: rows, outputs: 2 * width, threads: workers.threadCount)
    bias.withPointer { bias in
      forEachPiece(pieces, of: x, norm: norm) { piece, input, _, _ in
        self.multiplyPiece(
          input, rows: piece.rows.count, stride: x.width, gateUp, outputs: piece.outputs, bias: bias,
          into: products + piece.rows.lowerBound * 2 * width, outputStride: 2 * width)
      }
    }
    for row in 0..<rows {
      let gate = products + row * 2 * width
      nb_silu_multiply(level, gate, gate + width, Int64(width), output.row(row))
    }
  }

  // MARK: Pieces of work

  /// x [rows, inputs] times the transposed weight, on the workers.
  func multiply(
    _ x: UnsafePointer<Float>, rows: Int, stride: Int, _ weight: CPUMatrix, bias: CPUVector?, accumulate: Bool,
    into output: UnsafeMutablePointer<Float>, outputStride: Int
  ) {
    let pieces = ProductPieces(rows: rows, outputs: weight.outputs, threads: workers.threadCount)
    bias.withPointer { bias in
      workers.run(pieces.count) { index, _ in
        let piece = pieces[index]
        self.multiplyPiece(
          x + piece.rows.lowerBound * stride, rows: piece.rows.count, stride: stride, weight, outputs: piece.outputs,
          bias: bias, accumulate: accumulate, into: output + piece.rows.lowerBound * outputStride,
          outputStride: outputStride)
      }
    }
  }

  /// Some outputs of a product, on the calling thread.
  func multiplyPiece(
    _ x: UnsafePointer<Float>, rows: Int, stride: Int, _ weight: CPUMatrix, outputs: Range<Int>,
    bias: UnsafePointer<Float>? = nil,
    accumulate: Bool = false, into output: UnsafeMutablePointer<Float>, outputStride: Int
  ) {
    weight.withRows(outputs, level: level) { type, memory, factors, range, first in
      // The kernel takes and gives output n of the memory at index n.
      let offset = first - range.lowerBound
      nb_linear(
        level, type, memory, Int64(weight.inputs), Int64(range.lowerBound), Int64(range.upperBound), factors,
        bias.map { $0 + offset }, x, Int64(stride), Int64(rows), output + offset, Int64(outputStride),
        accumulate ? 1 : 0)
    }
  }

  /// Some outputs of silu(gate x) * up x, on the calling thread.
  /// - Parameter up: room for rows x outputs.
  func gatedPiece(
    _ x: UnsafePointer<Float>, rows: Int, stride: Int, _ gateUp: CPUMatrix, outputs: Range<Int>,
    bias: UnsafePointer<Float>? = nil,
    up: UnsafeMutablePointer<Float>, into output: UnsafeMutablePointer<Float>, outputStride: Int
  ) {
    multiplyPiece(
      x, rows: rows, stride: stride, gateUp, outputs: outputs, bias: bias, into: output, outputStride: outputStride)
    let first = gateUp.outputs / 2 + outputs.lowerBound
    multiplyPiece(
      x, rows: rows, stride: stride, gateUp, outputs: first..<first + outputs.count, bias: bias, into: up - first,
      outputStride: outputs.count)
    for row in 0..<rows {
      let gate = output + row * outputStride + outputs.lowerBound
      nb_silu_multiply(level, gate, up + row * outputs.count, Int64(outputs.count), gate)
    }
  }

  /// Runs `body` for every piece on the workers, with the piece's rows of `x` behind `norm`, `floats` floats that are the worker's
  /// own, and its number.
  private func forEachPiece(
    _ pieces: ProductPieces, of x: CPUActivations, norm: RMSNorm<CPUVector>?, floats: Int = 0,
    _ body: (
      _ piece: ProductPieces.Piece, _ input: UnsafePointer<Float>, _ own: UnsafeMutablePointer<Float>, _ worker: Int
    ) -> Void
  ) {
    guard let norm else {
      let scratch = workerScratch.reserve(workers: workers.threadCount, floats: floats)
      workers.run(pieces.count) { index, worker in
        let piece = pieces[index]
        body(piece, x.row(piece.rows.lowerBound), scratch[worker], worker)
      }
      return
    }
    // Each worker norms the rows of its pieces itself, once for pieces in a row. A job for that alone would keep all waiting.
    let inputFloats = pieces.rowsPerPiece * x.width
    let scratch = workerScratch.reserve(workers: workers.threadCount, floats: inputFloats + floats)
    for worker in normedRows.indices { normedRows[worker] = -1 }
    let (level, epsilon) = (level, norm.epsilon)
    norm.weight.values.withUnsafeBufferPointer { weight in
      normedRows.withUnsafeMutableBufferPointer { normedRows in
        // A worker reads and writes its own element.
        nonisolated(unsafe) let normedRows = normedRows
        workers.run(pieces.count) { index, worker in
          let piece = pieces[index]
          let (first, input) = (piece.rows.lowerBound, scratch[worker])
          if normedRows[worker] != first {
            normedRows[worker] = first
            for row in piece.rows {
              nb_rms_norm(
                level, x.row(row), weight.baseAddress, Int64(x.width), epsilon, input + (row - first) * x.width)
            }
          }
          body(piece, input, input + inputFloats, worker)
        }
      }
    }
  }
}

/// Memory that each worker has for itself during a job.
struct WorkerScratch: ~Copyable {
  private var buffer = GrowingBuffer()

  struct Slices {
    fileprivate let base: UnsafeMutablePointer<Float>
    fileprivate let stride: Int

    subscript(worker: Int) -> UnsafeMutablePointer<Float> { base + worker * stride }
  }

  /// - Parameter floats: of each worker; their contents are undefined. Allocates only where they are more than ever before.
  mutating func reserve(workers: Int, floats: Int) -> Slices {
    let stride = (floats + 15) & ~15
    let bytes = buffer.reserve(workers * stride * MemoryLayout<Float>.stride)
    return Slices(base: bytes.assumingMemoryBound(to: Float.self), stride: stride)
  }
}

extension Optional where Wrapped == CPUVector {
  @inline(__always)
  func withPointer(_ body: (UnsafePointer<Float>?) -> Void) {
    guard let vector = self else { return body(nil) }
    vector.values.withUnsafeBufferPointer { body($0.baseAddress) }
  }
}

private func withPointers(
  _ a: CPUVector?, _ b: CPUVector?, _ c: CPUVector?,
  _ body: (UnsafePointer<Float>?, UnsafePointer<Float>?, UnsafePointer<Float>?) -> Void
) {
  a.withPointer { a in b.withPointer { b in c.withPointer { c in body(a, b, c) } } }
}
